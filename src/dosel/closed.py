"""What readers see of a closed use case: figures about its rows, so coarse that one row more does not show.

By comparing exact figures before and after one row, a reader could learn whether that row was labelled, its class, and
whether the answer was right. So figures are coarse, and those on labelled rows rest on blocks of `BLOCK` rows of
labelled batches. Reasons and reports contain figures, too, so that numbers in texts are also replaced.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from dosel.usecases import UseCase

_EXACT = frozenset(
    {"a", "b", "version", "previous", "control", "sequence", "permutations", "majority", "model", "name", "slice"}
)
"""Fields that stay exact, since they count no rows: versions, entries, permutations, class codes and names."""

_STATUS = r"\bAPI(?: at \S+)? answered [1-5]\d\d(?=:|;| with )|\bHTTP status [1-5]\d\d\b"
"""Texts of errors with an HTTP status. Counts of rows have their noun after them, as in `answered 404 rows`."""

_ADDRESS = (
    r"\bhttps?://[^\s/?#]+|\blocalhost:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{2,5})?\b"
    # dosel writes counts from 1,000 with a comma.
    r"|\bport[ =]\d{4,5}\b"
)

_KEPT = (
    rf"{_STATUS}|{_ADDRESS}|"
    # Words whose number is a name and not a count, such as version 3, and times.
    r"\b(?:versions?|entry|request|shadow|batch|group|look) \d+(?: and \d+)?\b"
    r"|\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"
    # The version of a split, a digest, and a word with digits, such as f1_macro.
    r"|\bh\d+-[\w.-]+|\b(?=\d*[a-f])[0-9a-f]{12,}\b|[^\W\d]\w*"
)
_SHARE = r"\b(?:0\.\d+|1\.0+)\b(?![.,]\d| ?%)"
_NUMBER = r"\d(?:[\d,.]*\d)?(?:e[-+]?\d+)?"

_PARTS = re.compile(f"(?P<kept>{_KEPT})|(?P<share>{_SHARE})|{_NUMBER}")

_WITH_ROWS = ("reference.parquet", "held_out.parquet")
"""Endings of the paths of a version's files that have rows; see `dosel.model.bundle`."""

_LIVE = re.compile(r"\b(?:live|labels|labelled|evidence)\b")


BLOCK = 50
"""Labelled rows of batches, or held-out rows, after which figures change: even a rounded one can change with one row.

Feedback is left out of figures on live rows: a client that gives 49 labels of a block would know what the 50th
changed.
"""

HIDDEN = "hidden"
"""Placeholder for what a closed use case does not show: values, and digests, from which values could be guessed."""


def coarse(value: Any) -> Any:
    """Figures on live rows: counts in steps of ten, or with two digits; shares in steps of 0.05."""
    match value:
        case Mapping():
            return {name: part if _is_exact(name, part) else coarse(part) for name, part in value.items()}
        case list() | tuple():
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


def shown(use_case: UseCase, figures: Any) -> Any:
    """The figures as they are; for a closed use case, two decimals, coarse counts, and texts without numbers."""
    if use_case.expose_training_rows:
        return figures
    match figures:
        case Mapping():
            return {name: part if _is_exact(name, part) else shown(use_case, part) for name, part in figures.items()}
        case list() | tuple():
            return [shown(use_case, part) for part in figures]
        case float():
            return round(figures, 2)
        case str():
            return without_figures(figures)
        case _:
            return coarse(figures)


def shown_files(use_case: UseCase, digests: Mapping[str, str]) -> dict[str, str]:
    """The digests of a version's files; of a closed use case, without those of the files that have rows."""
    if use_case.expose_training_rows:
        return dict(digests)
    return {path: HIDDEN if path.endswith(_WITH_ROWS) else digest for path, digest in digests.items()}


def without_figures(text: str) -> str:
    """A text with an ellipsis for each number, except names of versions, times, addresses, HTTP statuses and the like.

    Shares on held-out rows have two decimals, in a text that says nothing of live rows.
    """
    is_live = _LIVE.search(text) is not None

    def part(found: re.Match[str]) -> str:
        if found["kept"]:
            return found["kept"]
        return f"{float(found['share']):.2f}" if found["share"] and not is_live else "…"

    return _PARTS.sub(part, text)


def http_status(text: str) -> str:
    """The HTTP status in the text of an error, such as `404`; "" if there is none."""
    found = re.search(_STATUS, text)
    return found[0][-3:] if found else ""


def _is_exact(name: str, part: Any) -> bool:
    return name in _EXACT and isinstance(part, int | str)
