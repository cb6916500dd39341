"""Measurements: each prints a Markdown table, and last one line `RESULT {json}`."""
