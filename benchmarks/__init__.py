"""Benchmarks: each prints a Markdown table, and then one line `RESULT {json}`."""
