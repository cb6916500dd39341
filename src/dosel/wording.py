"""Words for figures, for the terminal and the page."""


def duration(seconds: float) -> str:
    """A time in the largest unit of which there is at least one."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
