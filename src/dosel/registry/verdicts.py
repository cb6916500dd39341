"""The gate's verdicts on versions, promoted or not, and refusals at registration. Only signed verdicts are read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from dosel.db.tables import VERDICTS
from dosel.db.types import fitting
from dosel.registry import signed_entries
from dosel.registry.announcements import announce_refusal
from dosel.settings import Settings
from dosel.signing import Keys


@dataclass(frozen=True)
class Verdict:
    """A decision on a version. `report` is the gate's, as in `gate.json`; None if registration refused its files."""

    passed: bool
    reason: str
    report: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # Cut now and not when it is stored, so that this verdict and the stored one are equal, with the same digest.
        object.__setattr__(self, "reason", fitting(self.reason))

    @property
    def digest(self) -> str:
        """SHA-256 of the decision and its report without latencies, which differ each time: 64 hexadecimal digits."""
        report = {name: part for name, part in (self.report or {}).items() if name != "latency_ms"}
        content = [self.passed, self.reason, report]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def add(connection: Connection, model: str, version: int, run_id: str, verdict: Verdict, settings: Settings) -> None:
    """Add a signed verdict with its event, unless the version's last one is the same."""
    if last(connection, model, Keys(settings), version).get((version, run_id)) == verdict:
        return
    values = {
        "model": model,
        "version": version,
        "run_id": run_id,
        "at": datetime.now(UTC).replace(tzinfo=None),
        "passed": int(verdict.passed),
        "reason": verdict.reason,
        "report": json.dumps(verdict.report) if verdict.report is not None else None,
    }
    signed_entries.add(connection, VERDICTS, values, settings)
    if not verdict.passed:
        announce_refusal(connection, model, version, verdict)


def last(connection: Connection, model: str, keys: Keys, version: int | None = None) -> dict[tuple[int, str], Verdict]:
    """The last verdict on each version, or on one, by version and run."""
    mine = VERDICTS.c.model == model
    if version is not None:
        mine &= VERDICTS.c.version == version
    return {
        (row["version"], row["run_id"]): Verdict(
            bool(row["passed"]), row["reason"], json.loads(row["report"]) if row["report"] else None
        )
        for row in _signed(connection, mine, keys)
    }


def is_passed(connection: Connection, model: str, version: int, run_id: str, keys: Keys) -> bool:
    """Whether the gate let a version pass, by its last verdict."""
    mine = (VERDICTS.c.model == model) & (VERDICTS.c.version == version) & (VERDICTS.c.run_id == run_id)
    signed = _signed(connection, mine, keys)
    return bool(signed and signed[-1]["passed"])


def reports(connection: Connection, model: str, keys: Keys) -> list[tuple[int, str, Mapping[str, Any]]]:
    """Version, run and report of each of the gate's verdicts on a model's versions, oldest first."""
    mine = (VERDICTS.c.model == model) & VERDICTS.c.report.is_not(None)
    return [(row["version"], row["run_id"], json.loads(row["report"])) for row in _signed(connection, mine, keys)]


def is_refused_run(connection: Connection, model: str, run_id: str, keys: Keys) -> bool:
    """Whether registration refused a run's files."""
    mine = (VERDICTS.c.model == model) & (VERDICTS.c.run_id == run_id) & VERDICTS.c.report.is_(None)
    return bool(_signed(connection, mine, keys))


def _signed(connection: Connection, wanted: ColumnElement[bool], keys: Keys) -> list[RowMapping]:
    rows = connection.execute(select(VERDICTS).where(wanted).order_by(VERDICTS.c.id)).mappings().all()
    return signed_entries.proven(connection, VERDICTS, rows, keys)
