"""Looks at the holdout: how many comparisons of the gate rest on it, what each may spend, and when it is rotated.

Each comparison may let in a challenger that is only lucky on the held-out rows. Over many comparisons with the same
rows, one of them surely is: the holdout is used up (Blum and Hardt, The Ladder: A Reliable Leaderboard for Machine
Learning Competitions, ICML 2015). So the gate spends a budget over the looks, as sequential trials spend their error
(Lan and DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70, 1983): look k gets the share
k^-1.5 / (1^-1.5 + ... + n^-1.5) of the declared error probability and of the declared tolerance, for n declared
looks. By the union bound, over all n looks together Production loses at most the tolerance with the declared
confidence. `docs/adr/0020-looks.md` has the simulation that chose the power.

Looks are counted from the verdicts in the ledger, so that the count is right after a kill at any point.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dosel.rows import splits
from dosel.usecases import Split, UseCase

POWER = 1.5
"""How fast the shares of the budget fall from look to look."""


@dataclass(frozen=True)
class Look:
    """A look at the holdout, as the gate's report records it.

    Attributes:
        number: counts the looks at the holdout of one split, from 1.
        of: the declared number of looks, after which the holdout is rotated.
        seen: how often the gate had looked at a held-out row before, on average over the rows; rows that arrived since
            the last look were never looked at.
        share: the share of the declared error probability and tolerance that this look may spend.
        last_batch: the id of the newest batch; its rows and those of all earlier batches are looked at now.
    """

    number: int
    of: int
    seen: float
    share: float
    last_batch: int = 0

    @property
    def left(self) -> int:
        """The number of looks until the holdout is rotated."""
        return max(self.of - self.number, 0)

    def describe(self) -> str:
        return (
            f"Look {self.number} of {self.of} at this holdout. The gate had compared versions on these rows "
            f"{self.seen:.1f} times before. This comparison may use {self.share:.2%} of the error probability and of "
            "the tolerance."
        )


@dataclass(frozen=True)
class PastLook:
    """A comparison in the ledger. Equal ones are one look: a task that was killed compares again.

    Attributes:
        last_batch: the newest batch at that time; None in a report of an older dosel.
    """

    version: int
    run_id: str
    champion: int
    split: str
    rows: int
    last_batch: int | None

    @classmethod
    def of(cls, version: int, run_id: str, report: Mapping[str, Any]) -> "PastLook | None":
        """The look of a gate's report; None if nothing was compared."""
        champion, metrics = report.get("champion"), report.get("metrics", {})
        if champion is None or not {"challenger", "production"} <= metrics.keys():
            return None
        last_batch = (report.get("look") or {}).get("last_batch")
        return cls(version, run_id, champion, report["split"], report["rows"], last_batch)


@dataclass(frozen=True)
class Holdout:
    """The holdout that trainings and the gate use now.

    Attributes:
        epoch: how often the holdout was rotated.
        looks: the number of looks at it.
        of: the declared number of looks, after which it is rotated.
        split: its split.
    """

    epoch: int
    looks: int
    of: int
    split: Split

    @property
    def left(self) -> int:
        """The number of looks until it is rotated."""
        return self.of - self.looks

    def describe(self) -> str:
        return f"holdout {self.epoch + 1}: {self.looks} of {self.of} looks used, {self.left} left until it is rotated"


def share(looks: int, seen: float) -> float:
    """The share of the budget for a look at rows that the gate has looked at `seen` times before.

    Args:
        looks: the number of looks over which the budget is spent.
    """
    return float((1 + seen) ** -POWER / sum(k**-POWER for k in range(1, looks + 1)))


def distinct(reports: Iterable[tuple[int, str, Mapping[str, Any]]]) -> list[PastLook]:
    """The looks of a model, in the order of its verdicts: version, run and the gate's report of each."""
    found = (PastLook.of(*report) for report in reports)
    return list(dict.fromkeys(look for look in found if look is not None))


def holdout(use_case: UseCase, past: Sequence[PastLook]) -> Holdout:
    """The holdout after these looks: each time that its looks are used up, the next salt takes its place."""
    declared, epoch, of = use_case.split, 0, use_case.gate.looks
    while True:
        split = replace(declared, salt=f"{declared.salt}.{epoch}") if epoch else declared
        version = splits.split_version(replace(use_case, split=split))
        if (looks := sum(look.split == version for look in past)) < of:
            return Holdout(epoch, looks, of, split)
        epoch += 1
