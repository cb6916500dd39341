"""Figures about live rows of a closed use case, so coarse that one row more does not show.

Exact ones would tell whether a row was labelled, and its class: feedback and a batch count a row once, and evidence
counts each labelled row.
"""

import math
import re
from typing import Any

_EXACT = frozenset({"version", "sequence", "permutations"})

_NUMBER = re.compile(r"\d[\d,.]*\d|\d")

_COUNTS = re.compile(r"\d[\d,]* of \d[\d,]*|\d[\d,]* (?:rows? )?only")


def coarse(value: Any) -> Any:
    """Counts in steps of ten, or with two digits; shares in steps of 0.05; other figures with two digits."""
    match value:
        case dict():
            return {name: part if name in _EXACT else coarse(part) for name, part in value.items()}
        case list():
            return [coarse(part) for part in value]
        case float():
            return round(round(value * 20) / 20, 2) if abs(value) <= 1 else float(f"{value:.2g}")
        case int() if not isinstance(value, bool):
            step = 10 ** max(len(str(value)) - 2, 1)
            return value // step * step
        case _:
            return value


def power_of_ten(evidence: float) -> float:
    """The largest power of ten that evidence reaches: each label changes the evidence itself."""
    return 10.0 ** math.floor(math.log10(evidence)) if 0 < evidence < math.inf else evidence


def without_numbers(text: str) -> str:
    """A sentence with an ellipsis for each number."""
    return _NUMBER.sub("…", text)


def without_counts(text: str) -> str:
    """A reason with an ellipsis for each count of rows, such as `17 of 40`."""
    return _COUNTS.sub(lambda found: re.sub(r"\d[\d,]*", "…", found[0]), text)
