"""Watches the version in Production: the truth about its answers, and whether the gate's figures still hold."""
