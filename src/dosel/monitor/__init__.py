"""Watches the version in Production: scores it on labelled rows, and tests whether it got worse than the gate found."""
