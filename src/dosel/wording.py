"""Words for figures, for the terminal and the page."""

NEEDS_LABELS = (
    "None of these figures can see a concept drift (rows like before, other classes): only labels can. "
    "They never alarm and never start a training."
)
"""What a reader of the figures without labels has to know."""

ONLY_BATCHES = (
    "This use case is closed: these figures rest on whole blocks of 50 rows of labelled batches. dosel counts "
    "feedback, too, and does not show it. `dosel health` and `dosel shadow` on the server count it."
)
"""What a reader of a closed use case's figures on live rows has to know."""

NO_CONTEXT = "Not known yet: scoring computes it once the prediction log has 100 answers of this version."
"""Shown in place of the figures without labels."""


NOTHING_PROMISED = "nothing promised"
"""The state of a metric of which the gate promised nothing: a recall of 0 cannot fall."""


def duration(seconds: float) -> str:
    """A time in the largest unit of which there is at least one."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
