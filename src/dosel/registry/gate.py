"""Whether a challenger enters Production: a decision on figures, made without touching anything.

Each rule is judged, and what cannot be judged does not hold: the gate fails closed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dosel.registry.intervals import METRICS, Classes, Counts, confusion, difference_interval, recalls
from dosel.usecases import Gate, Target

EXAMPLE_TOLERANCE = 1e-6
"""How far a probability of the example may be off: serving may compute in float32."""


COMPARISONS = {"gain", "interval"}
"""Rules whose failing is told by the two scores alone."""


@dataclass(frozen=True)
class ModelEvaluation:
    """What a model showed on the held-out rows.

    Attributes:
        predicted: its class for each row; None if it could not be loaded or failed on them.
        failure: why, if so.
        split: the version of the split it was trained with.
        example: probabilities by class code, for the use case's example: `answered` by serving, `recorded` by the
            training; None what there is not.
        latency_ms: median time of an answer for one row.
        backend_tags: tags that say what is to answer, and why, after a proof on all held-out rows.
    """

    version: int
    predicted: Classes | None
    failure: str = ""
    split: str | None = None
    answered: Mapping[int, float] | None = None
    recorded: Mapping[int, float] | None = None
    latency_ms: float | None = None
    backend_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One rule, whether it holds, and in words the figures it rests on."""

    name: str
    holds: bool
    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the gate found: `passed` if, and only if, every rule holds."""

    rules: tuple[Rule, ...]
    reason: str
    challenger: int
    champion: int | None
    rows: int
    split: str
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    backend_tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(rule.holds for rule in self.rules)

    def document(self) -> dict[str, Any]:
        """As `gate.json` and the ledger keep it."""
        return {"passed": self.passed} | asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Report":
        known = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        return cls(**known | {"rules": tuple(Rule(**rule) for rule in document["rules"])})

    @property
    def table(self) -> str:
        """The rules as a Markdown table, under the verdict."""
        verdict = "Passed the gate" if self.passed else "Candidate, not promoted"
        lines = [f"| {rule.name} | {'holds' if rule.holds else '**fails**'} | {rule.words} |" for rule in self.rules]
        return "\n".join([f"{verdict}: {self.reason}.", "", "| rule | verdict | figures |", "|---|---|---|", *lines])


def judge(
    gate: Gate,
    target: Target,
    truth: Classes,
    split: str,
    challenger: ModelEvaluation,
    champion: ModelEvaluation | None,
    seed: int,
) -> Report:
    """Judges every rule that the use case declares.

    Args:
        truth: the held-out rows' classes.
        split: the version of the split by which those rows are held out now.
        champion: what is in Production; None if nothing is.
    """
    judged = _Judged(gate, target, truth, split, challenger, champion, seed)
    rules = tuple(judged.rules())
    metrics = {"challenger": judged.metrics(challenger)}
    latency = {"challenger": challenger.latency_ms}
    if champion is not None:
        metrics["production"] = judged.metrics(champion)
        latency["production"] = champion.latency_ms
    return Report(
        rules,
        _reason(gate, rules, metrics, len(truth)),
        challenger.version,
        champion.version if champion else None,
        len(truth),
        split,
        {side: figures for side, figures in metrics.items() if figures},
        {side: milliseconds for side, milliseconds in latency.items() if milliseconds is not None},
        challenger.backend_tags,
    )


class _CannotTell(Exception):
    """A rule cannot be judged, and why."""


class _Judged:
    """The rules over one comparison."""

    def __init__(
        self,
        gate: Gate,
        target: Target,
        truth: Classes,
        split: str,
        one: ModelEvaluation,
        other: ModelEvaluation | None,
        seed: int,
    ) -> None:
        self._gate = gate
        self._target = target
        self._codes = np.array(sorted(target.labels), dtype=np.int64)
        self._truth = truth
        self._split = split
        self._one = one
        self._other = other
        self._seed = seed

    def rules(self) -> Iterator[Rule]:
        rules = {
            "serving": self._serving,
            "example": self._example,
            "split": self._same_split,
            "floor": self._floor,
            "baseline": self._baseline,
            "gain": self._gain,
            "interval": self._interval,
            "class recall": self._class_recall,
        }
        for name, rule in rules.items():
            try:
                holds, words, figures = rule()
            except (_CannotTell, ValueError, KeyError) as error:
                holds, words, figures = False, f"cannot be judged: {error}", {}
            yield Rule(name, holds, words, figures)

    def metrics(self, shown: ModelEvaluation) -> dict[str, float]:
        """Every metric of one side; none if it could not be scored."""
        try:
            matrix = self._matrix(shown)
        except (_CannotTell, ValueError):
            return {}
        return {name: float(figure(matrix)) for name, figure in METRICS.items()}

    def _serving(self) -> tuple[bool, str, dict[str, Any]]:
        if self._one.predicted is None:
            return False, self._one.failure, {}
        return True, "loads as serving loads it, and answers", {}

    def _example(self) -> tuple[bool, str, dict[str, Any]]:
        recorded, answered = self._one.recorded, self._one.answered
        if answered is None:
            raise _CannotTell(self._one.failure or "it did not answer the example")
        if recorded is None:
            raise _CannotTell("its run did not record what it answers to the example")
        if recorded.keys() != answered.keys():
            return False, f"answers the classes {sorted(answered)} instead of {sorted(recorded)}", {}
        furthest = max(abs(recorded[code] - answered[code]) for code in recorded)
        alike = max(recorded, key=recorded.__getitem__) == max(answered, key=answered.__getitem__)
        words = f"{'the same class' if alike else 'another class'}, probabilities off by at most {furthest:.1e}"
        return alike and furthest <= EXAMPLE_TOLERANCE, words, {"furthest": furthest}

    def _same_split(self) -> tuple[bool, str, dict[str, Any]]:
        splits = {"now": self._split, "challenger": self._one.split}
        if self._other is not None:
            splits["production"] = self._other.split
        if set(splits.values()) == {self._split}:
            return True, f"{self._split}, by which none of these rows was trained on", splits
        words = ", ".join(f"{side} {split or 'unknown'}" for side, split in splits.items())
        return False, f"the splits differ ({words}): one may have been trained on rows the other is tested on", splits

    def _floor(self) -> tuple[bool, str, dict[str, Any]]:
        score, floor = self._score(self._one), self._gate.floor
        return score >= floor, f"{score:.4f}, at least {floor:.4f} is asked", {"score": score, "floor": floor}

    def _baseline(self) -> tuple[bool, str, dict[str, Any]]:
        score = self._score(self._one)
        codes, counts = np.unique(self._truth, return_counts=True)
        majority = int(codes[counts.argmax()])
        matrix = confusion(self._truth, np.full_like(self._truth, majority), self._codes)
        baseline = float(METRICS[self._gate.metric](matrix))
        words = f"{score:.4f}, always answering {self._target.labels[majority]} gives {baseline:.4f}"
        return score > baseline, words, {"score": score, "baseline": baseline, "majority": majority}

    def _gain(self) -> tuple[bool, str, dict[str, Any]]:
        if self._other is None:
            return self._nothing_there()
        one, other, least = self._score(self._one), self._score(self._other), self._gate.min_gain
        # Differences of shares: what lies beyond the twelfth decimal is rounding.
        holds = round(one - other, 12) >= least
        words = f"{one:.4f} against {other:.4f}: {one - other:+.4f}, at least {least:+.4f} is asked"
        return holds, words, {"challenger": one, "production": other, "gain": one - other, "min_gain": least}

    def _interval(self) -> tuple[bool, str, dict[str, Any]]:
        if self._other is None:
            return self._nothing_there()
        gate = self._gate
        one, other = self._answers(self._one), self._answers(self._other)
        low, high = difference_interval(
            gate.metric, self._truth, one, other, self._codes, gate.confidence, gate.resamples, self._seed
        )
        words = (
            f"{gate.confidence:.0%} of resamples in {low:+.4f} to {high:+.4f}, at least {-gate.tolerance:+.4f} is asked"
        )
        return low >= -gate.tolerance, words, {"low": low, "high": high, "tolerance": gate.tolerance}

    def _class_recall(self) -> tuple[bool, str, dict[str, Any]]:
        if self._other is None:
            return self._nothing_there()
        drops = recalls(self._matrix(self._other)) - recalls(self._matrix(self._one))
        seen = {int(code): float(drop) for code, drop in zip(self._codes, drops, strict=True) if drop == drop}
        if not seen:
            raise _CannotTell("there are no held-out rows")
        worst = max(seen, key=seen.__getitem__)
        words = (
            f"{self._target.labels[worst]} falls furthest, by {max(seen[worst], 0):.4f}, "
            f"at most {self._gate.max_class_drop:.4f} is allowed"
        )
        if unseen := [label for code, label in self._target.labels.items() if code not in seen]:
            words += f"; no held-out rows of {', '.join(unseen)}"
        return seen[worst] <= self._gate.max_class_drop, words, {"drops": {str(c): d for c, d in seen.items()}}

    def _nothing_there(self) -> tuple[bool, str, dict[str, Any]]:
        return True, "nothing was in Production to compare with", {}

    def _score(self, shown: ModelEvaluation) -> float:
        return float(METRICS[self._gate.metric](self._matrix(shown)))

    def _matrix(self, shown: ModelEvaluation) -> Counts:
        return confusion(self._truth, self._answers(shown), self._codes)

    def _answers(self, shown: ModelEvaluation) -> Classes:
        if shown.predicted is None:
            who = "the challenger" if shown is self._one else f"version {shown.version}, in Production,"
            raise _CannotTell(f"{who} could not be scored: {shown.failure}")
        if len(self._truth) == 0:
            raise _CannotTell("there are no held-out rows")
        return shown.predicted


def _reason(gate: Gate, rules: tuple[Rule, ...], metrics: Mapping[str, Mapping[str, float]], rows: int) -> str:
    figures = ""
    if score := metrics["challenger"].get(gate.metric):
        figures = f"{gate.metric} {score:.4f}"
        if production := metrics.get("production", {}).get(gate.metric):
            figures += f" against {production:.4f} in Production, on the same {rows:,} held-out rows"
    failed = {rule.name: rule.words for rule in rules if not rule.holds}
    if not failed:
        return f"better: {figures}" if "production" in metrics else f"{figures}; nothing was in Production"
    worse = bool(figures) and not failed.keys().isdisjoint(COMPARISONS)
    others = [f"{name}: {words}" for name, words in failed.items() if not (worse and name in COMPARISONS)]
    return "; ".join([f"not better: {figures}"] * worse + others)
