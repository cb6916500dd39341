"""Compares the champion with a version in shadow on labelled live rows; the result is valid after every label.

Each row on which one of the two is right and the other is wrong is a bet that the version in shadow wins or loses. A
canary has no such rows: there, each value that the challenger got is compared with the mean of a block of the
champion's values, by the first labelled row of each value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from dosel.monitor.pairs import Arm
from dosel.monitor.sequential import Differences, Floats, Tally, log_evidence_of_gain
from dosel.monitor.truths import Classes
from dosel.usecases import Shadow, Target

Finding = Literal["better", "worse", "a class is worse"]
CLASS_IS_WORSE: Final = "a class is worse"

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

Rows = tuple[Differences, Places]
"""Differences, -1 to 1, and the number of labels after which each is known; both of shape (rows,)."""


@dataclass(frozen=True)
class Proof:
    """What the differences prove.

    Attributes:
        log_for, log_against: logarithms of the evidence that the version in shadow is better, or worse, after the
            last label.
        log_needed: either is proven where it reaches this.
        falls: how much of the needed evidence there is that a class's recall fell too much, by label; 1 proves it.
        finding: what was proven first, after `after` labels; it stays proven.
    """

    log_for: float
    log_against: float
    log_needed: float
    falls: Mapping[str, float]
    finding: Finding | None = None
    after: int | None = None

    @property
    def e_value(self) -> float:
        """The evidence that the shadow is better; `e_needed` proves it."""
        return float(np.exp(min(self.log_for, 700.0)))

    @property
    def e_against(self) -> float:
        """The evidence that the shadow is worse."""
        return float(np.exp(min(self.log_against, 700.0)))

    @property
    def e_needed(self) -> float:
        return float(np.exp(self.log_needed))


@dataclass(frozen=True)
class ShadowComparison:
    """What labelled rows show of a shadow.

    Attributes:
        labels: rows that were compared; of a canary, the challenger's values that were compared with a block.
        shadow, champion: correct answers of each; of a canary, values whose first labelled row was answered correctly.
        only_shadow, only_champion: rows that only one of the two answered correctly; None for a canary.
    """

    labels: int
    shadow: Tally
    champion: Tally
    only_shadow: int | None
    only_champion: int | None
    proof: Proof

    @property
    def in_words(self) -> str:
        """The figures as a clause."""
        mine, others = (f"{tally.correct:,} of {tally.total:,}" for tally in (self.shadow, self.champion))
        if self.only_shadow is None:
            return f"it answered {mine} values correctly, by the first labelled row of each, the champion {others}"
        ours, theirs = _rows(self.only_shadow), _rows(self.only_champion or 0)
        return (
            f"it answered {mine} labelled rows correctly, the champion {others} "
            f"({ours} only the version in shadow, {theirs} only the champion)"
        )

    @property
    def unit(self) -> str:
        """What `labels` counts, in the plural."""
        return "labelled rows" if self.only_shadow is not None else "compared values"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def compare_pairs(
    target: Target, rules: Shadow, max_fall: float, truth: Classes, champion: Classes, shadow: Classes
) -> ShadowComparison:
    """Compare the answers of both to the same rows.

    Args:
        max_fall: the largest accepted fall of a class's recall, 0 to 1.
        truth, champion, shadow: class codes of the labelled rows, each of shape (rows,).
    """
    right, before = shadow == truth, champion == truth
    differences, place = right.astype(np.int64) - before, np.arange(1, len(truth) + 1)
    by_class = {label: (differences[truth == code], place[truth == code]) for code, label in target.labels.items()}
    return ShadowComparison(
        labels=len(truth),
        shadow=Tally(int(right.sum()), len(truth)),
        champion=Tally(int(before.sum()), len(truth)),
        only_shadow=int((differences > 0).sum()),
        only_champion=int((differences < 0).sum()),
        proof=prove(rules, max_fall, (differences, place), by_class),
    )


def compare_arms(target: Target, rules: Shadow, max_fall: float, canary: Arm, champion: Arm) -> ShadowComparison:
    """Compare the answers of both to different rows, as of a canary."""
    beside = max(1, round((1 - rules.share) / rules.share))
    right, before = canary.truth == canary.answered, champion.truth == champion.answered

    def rows(mine: Flags, others: Flags) -> Rows:
        places, blocks = np.flatnonzero(mine) + 1, before[others]
        count = min(len(places), len(blocks) // beside)
        means = blocks[: count * beside].reshape(count, beside).mean(axis=1)
        return right[mine][:count] - means, places[:count]

    everything = rows(np.ones(len(right), np.bool_), np.ones(len(before), np.bool_))
    by_class = {label: rows(canary.truth == code, champion.truth == code) for code, label in target.labels.items()}
    return ShadowComparison(
        labels=len(everything[0]),
        shadow=Tally(int(right.sum()), len(right)),
        champion=Tally(int(before.sum()), len(before)),
        only_shadow=None,
        only_champion=None,
        proof=prove(rules, max_fall, everything, by_class),
    )


def prove(rules: Shadow, max_fall: float, everything: Rows, by_class: Mapping[str, Rows]) -> Proof:
    """What the differences, shadow minus champion, prove after each label, once there are `rules.min_labels`."""
    needed = -np.log(rules.alpha)
    differences, place = everything
    better, worse = log_evidence_of_gain(differences), log_evidence_of_gain(-differences)
    proofs: list[tuple[int, Finding]] = []

    def check(evidence: Floats, places: Places, enough: float, finding: Finding) -> None:
        found = np.flatnonzero((evidence >= enough) & (places >= rules.min_labels))
        if len(found):
            proofs.append((int(places[found[0]]), finding))

    # In this order: of two proofs by the same label, the one against the shadow counts.
    falls = {}
    for label, (of_class, places) in by_class.items():
        enough = needed + np.log(len(by_class))
        fallen = log_evidence_of_gain(-of_class, max_fall)
        falls[label] = float(max(fallen[-1], 0.0) / enough) if len(fallen) else 0.0
        check(fallen, places, enough, CLASS_IS_WORSE)
    check(worse, place, needed, "worse")
    check(better, place, needed, "better")
    after, finding = min(proofs, key=lambda proof: proof[0], default=(None, None))
    now = (float(better[-1]), float(worse[-1])) if len(differences) else (0.0, 0.0)
    return Proof(*now, float(needed), falls, finding, after)
