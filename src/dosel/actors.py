"""Who changed Production, in words: the ledger keeps the id of a run of Airflow, which nobody can read."""

import re
from datetime import UTC, datetime

_RUN = re.compile(r"^(?P<dag>\w+) [a-z_]+__(?P<at>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))?[^\s,]*")
"""A DAG and the id of its run, such as `covertype_train scheduled__2026-11-28T14:05:00+00:00`."""


def readable(actor: str) -> str:
    """The actor of an entry for people; a run of Airflow by its time, anybody else as in the ledger."""
    return _RUN.sub(_run_in_words, actor)


def _run_in_words(found: re.Match[str]) -> str:
    try:
        return f"Airflow, run of {datetime.fromisoformat(found['at'] or '').astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        # A person who starts a run may give it any id.
        return f"Airflow, DAG {found['dag']}"
