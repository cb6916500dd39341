"""Received text in messages, which repeat only its beginning."""

MAX_SHOWN = 60
"""Characters of a received value that a message repeats."""


def cut(text: str) -> str:
    """The text, or its first `MAX_SHOWN` characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
