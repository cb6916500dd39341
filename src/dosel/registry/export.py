"""The promotion ledger as CSV, and times as people write them."""

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime

from dosel.registry.ledger import Promotion
from dosel.rows.shortened import cut

COLUMNS = (
    *("model", "sequence", "at", "from_version", "to_version", "kind", "actor", "reason"),
    *("to_run", "data_digest", "manifest_digest", "metrics_before", "metrics_after", "gate"),
)


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters with which a spreadsheet's formula begins."""


def as_csv(history: Iterable[Promotion]) -> str:
    """The entries as CSV with a header; metrics and the gate's report are JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for entry in history:
        values = vars(entry) | vars(entry.evidence)
        values["at"] = entry.at.isoformat()
        for name in ("metrics_before", "metrics_after", "gate"):
            values[name] = json.dumps(values[name]) if values[name] is not None else ""
        writer.writerow({name: _as_text(values[name]) for name in COLUMNS})
    return text.getvalue()


def _as_text(value: object) -> object:
    """A value that no spreadsheet reads as a formula: such a text gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def moment(text: str) -> datetime:
    """Parse an ISO 8601 time or `now`; without a zone it is UTC.

    Raises:
        ValueError: it is not a time; the message shows how to write one.
    """
    if text == "now":
        return datetime.now(UTC)
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{cut(text)!r} is not a time; write it as 2026-11-21T03:00:00Z") from None
    try:
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except OverflowError:
        # In UTC, it lies before the year 1 or after the year 9999.
        return (datetime.min if read.year == 1 else datetime.max).replace(tzinfo=UTC)
