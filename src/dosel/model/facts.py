"""The figures of a training, recorded when the training process wrote the model's files.

The ledger keeps these facts with the files' digests. MLflow shows them too, but anybody who can open MLflow can edit
them there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Protocol

HOLDOUT = "holdout_"
"""Prefix of a training's metrics on the held-out rows."""

BEFORE = "test_"
"""The prefix that an older dosel used instead."""


def current_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """A training's metrics under the names that trainings give them now."""
    return {
        f"{HOLDOUT}{name.removeprefix(BEFORE)}" if name.startswith(BEFORE) else name: value
        for name, value in metrics.items()
    }


def held_out(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics on the held-out rows without their prefix, those that are finite."""
    return {
        name.removeprefix(HOLDOUT): value
        for name, value in current_names(metrics).items()
        if name.startswith(HOLDOUT) and isfinite(value)
    }


@dataclass(frozen=True)
class Facts:
    """The figures of a training.

    Attributes:
        metrics: as MLflow shows them; a metric may be NaN.
        params: the search's parameters, and the best candidate's with the prefix `best_`.
        tags: the run's `dosel.` tags as text.
        declaration: the meaning of a row's columns (`dosel.model.fingerprint.declaration`).
        sizes: the bytes of each of the model's files, by its path; empty if an older dosel trained it.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    declaration: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The facts as JSON values. Without sizes they are as an older dosel wrote them, and have the same digest."""
        values = asdict(self)
        return values if self.sizes else {name: value for name, value in values.items() if name != "sizes"}


class TrainingLedger(Protocol):
    """Where a training records its models' files before they leave its process."""

    def is_attested(self, model: str, run_id: str) -> bool:
        """Whether a run's files were recorded, and not refused at registration."""

    def attest(self, model: str, run_id: str, files: Mapping[str, str], facts: Facts) -> bytes:
        """Record the SHA-256 of each file that a run is about to upload, and the facts; return the files' signature."""
