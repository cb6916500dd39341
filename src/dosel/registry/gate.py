"""The gate: decides whether a challenger may replace the champion. It only compares figures and changes nothing.

Every rule is judged. A rule that cannot be judged fails: the gate fails closed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dosel.registry.evaluations import JudgedRows, ModelEvaluation
from dosel.registry.intervals import METRICS, Classes, Counts, confusion, difference_interval, metric_intervals, recalls
from dosel.registry.looks import Look, share
from dosel.registry.report import Report, Rule
from dosel.usecases import Gate, Target

EXAMPLE_TOLERANCE = 1e-6
"""Largest accepted difference of a probability of the example: serving may compute in float32."""


FEWEST_OF_GROUP = 30
"""Fewest held-out rows of a group's value that the rule on gaps compares; with fewer, chance decides."""

COMPARISONS = {"gain", "interval"}
"""Rules whose failure message is the difference of the two scores."""


def judge(
    gate: Gate,
    target: Target,
    rows: JudgedRows,
    challenger: ModelEvaluation,
    champion: ModelEvaluation | None,
    seed: int,
) -> Report:
    """Judge every rule.

    Args:
        champion: the version in Production, or None.
    """
    judged = _Rules(gate, target, rows, challenger, champion, seed)
    verdicts = tuple(judged.judge())
    metrics = {"challenger": judged.metrics(challenger)}
    latency = {"challenger": challenger.latency_ms}
    if champion is not None:
        metrics["production"] = judged.metrics(champion)
        latency["production"] = champion.latency_ms
    return Report(
        verdicts,
        _reason(gate, verdicts, metrics, len(rows.truth)),
        challenger.version,
        champion.version if champion else None,
        len(rows.truth),
        rows.split,
        {side: figures for side, figures in metrics.items() if figures},
        {side: milliseconds for side, milliseconds in latency.items() if milliseconds is not None},
        challenger.backend_tags,
        judged.look if champion else None,
        judged.recalled(challenger),
        judged.intervals(challenger),
        judged.grouped(challenger),
    )


class _NotJudgeable(Exception):
    """A rule cannot be judged; the message says why."""


@dataclass(frozen=True)
class _Rules:
    """The rules, for one challenger and one champion."""

    gate: Gate
    target: Target
    rows: JudgedRows
    challenger: ModelEvaluation
    champion: ModelEvaluation | None
    seed: int

    @property
    def truth(self) -> Classes:
        return self.rows.truth

    @property
    def look(self) -> Look:
        looks = self.gate.looks
        return self.rows.look or Look(1, looks, 0.0, share(looks, 0.0))

    @cached_property
    def codes(self) -> Classes:
        """The target's class codes, sorted."""
        return np.array(sorted(self.target.labels), dtype=np.int64)

    def judge(self) -> Iterator[Rule]:
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
        if self.gate.max_gap is not None:
            rules["group gap"] = self._group_gap
        for name, rule in rules.items():
            try:
                holds, words, figures = rule()
            except (_NotJudgeable, ValueError, KeyError) as error:
                holds, words, figures = False, f"cannot be judged: {error}", {}
            yield Rule(name, holds, words, figures)

    def metrics(self, evaluation: ModelEvaluation) -> dict[str, float]:
        """All metrics of one version; empty if it could not be scored."""
        try:
            matrix = self._matrix(evaluation)
        except (_NotJudgeable, ValueError):
            return {}
        return {name: float(figure(matrix)) for name, figure in METRICS.items()}

    def recalled(self, evaluation: ModelEvaluation) -> dict[str, tuple[int, int]]:
        """Correct answers and rows by class code; empty if the version could not be scored."""
        try:
            matrix = self._matrix(evaluation)
        except (_NotJudgeable, ValueError):
            return {}
        counts = zip(self.codes, np.diagonal(matrix), matrix.sum(axis=1), strict=True)
        return {str(code): (int(correct), int(total)) for code, correct, total in counts}

    def intervals(self, evaluation: ModelEvaluation) -> dict[str, tuple[float, float]]:
        """The interval of each metric of one version; empty if it could not be scored."""
        try:
            return metric_intervals(self.gate, self._matrix(evaluation), self.seed)
        except (_NotJudgeable, ValueError):
            return {}

    def grouped(self, evaluation: ModelEvaluation) -> dict[str, dict[str, tuple[int, int]]]:
        """Correct answers and rows by declared group and value; empty if the version could not be scored."""
        try:
            right = self._answers(evaluation) == self.truth
        except _NotJudgeable:
            return {}
        return {
            name: {str(v): (int(right[values == v].sum()), int((values == v).sum())) for v in np.unique(values)}
            for name, values in self.rows.groups.items()
        }

    def _serving(self) -> tuple[bool, str, dict[str, Any]]:
        if self.challenger.predicted is None:
            return False, self.challenger.failure, {}
        return True, "it loads and predicts as it does in serving", {}

    def _example(self) -> tuple[bool, str, dict[str, Any]]:
        recorded, answered = self.challenger.recorded, self.challenger.answered
        if answered is None:
            raise _NotJudgeable(self.challenger.failure or "the challenger did not answer the example")
        if recorded is None:
            raise _NotJudgeable("the challenger's run recorded no answer to the example")
        if recorded.keys() != answered.keys():
            return False, f"answers the classes {sorted(answered)} instead of {sorted(recorded)}", {}
        furthest = max(abs(recorded[code] - answered[code]) for code in recorded)
        alike = max(recorded, key=recorded.__getitem__) == max(answered, key=answered.__getitem__)
        words = f"{'the same class' if alike else 'another class'}, probabilities off by at most {furthest:.1e}"
        return alike and furthest <= EXAMPLE_TOLERANCE, words, {"furthest": furthest}

    def _same_split(self) -> tuple[bool, str, dict[str, Any]]:
        splits = {"now": self.rows.split, "challenger": self.challenger.split}
        if self.champion is not None:
            splits["production"] = self.champion.split
        if set(splits.values()) == {self.rows.split}:
            return True, f"all use the split {self.rows.split}: no model was trained on these rows", splits
        if set(splits.values()) <= {self.rows.split, *self.rows.other_splits}:
            words = f"the splits differ; these are the {len(self.truth):,} held-out rows that no model was trained on"
            return True, words, splits
        words = ", ".join(f"{side} {split or 'unknown'}" for side, split in splits.items())
        return False, f"the splits differ ({words}): a model may have been trained on these rows", splits

    def _floor(self) -> tuple[bool, str, dict[str, Any]]:
        score, floor = self._score(self.challenger), self.gate.floor
        return score >= floor, f"{score:.4f}; required: at least {floor:.4f}", {"score": score, "floor": floor}

    def _baseline(self) -> tuple[bool, str, dict[str, Any]]:
        score = self._score(self.challenger)
        codes, counts = np.unique(self.truth, return_counts=True)
        majority = int(codes[counts.argmax()])
        matrix = confusion(self.truth, np.full_like(self.truth, majority), self.codes)
        baseline = float(METRICS[self.gate.metric](matrix))
        words = f"{score:.4f}; always predicting {self.target.labels[majority]} gives {baseline:.4f}"
        return score > baseline, words, {"score": score, "baseline": baseline, "majority": majority}

    def _gain(self) -> tuple[bool, str, dict[str, Any]]:
        if self.champion is None:
            return self._no_champion()
        one, other, least = self._score(self.challenger), self._score(self.champion), self.gate.min_gain
        # Rounded, since differences of shares have rounding errors beyond the twelfth decimal.
        holds = round(one - other, 12) >= least
        words = f"{one:.4f} against {other:.4f}: {one - other:+.4f}; required: at least {least:+.4f}"
        return holds, words, {"challenger": one, "production": other, "gain": one - other, "min_gain": least}

    def _interval(self) -> tuple[bool, str, dict[str, Any]]:
        if self.champion is None:
            return self._no_champion()
        gate, spent = self.gate, self.look.share
        one, other = self._answers(self.challenger), self._answers(self.champion)
        low, high = difference_interval(gate, self.truth, one, other, self.codes, self.seed, spent)
        confidence, tolerance = 1 - (1 - gate.confidence) * spent, gate.tolerance * spent
        words = (
            f"{confidence:.4%} interval of the difference: {low:+.4f} to {high:+.4f}; "
            f"required: at least {-tolerance:+.4f} at look {self.look.number} of {self.look.of}"
        )
        return low >= -tolerance, words, {"low": low, "high": high, "tolerance": tolerance, "confidence": confidence}

    def _class_recall(self) -> tuple[bool, str, dict[str, Any]]:
        if self.champion is None:
            return self._no_champion()
        drops = recalls(self._matrix(self.champion)) - recalls(self._matrix(self.challenger))
        seen = {int(code): float(drop) for code, drop in zip(self.codes, drops, strict=True) if not np.isnan(drop)}
        if not seen:
            raise _NotJudgeable("there are no held-out rows")
        worst = max(seen, key=seen.__getitem__)
        words = (
            f"largest drop of a class's recall: {max(seen[worst], 0):.4f} ({self.target.labels[worst]}); "
            f"allowed: at most {self.gate.max_class_drop:.4f}"
        )
        if unseen := [label for code, label in self.target.labels.items() if code not in seen]:
            words += f"; no held-out rows of {', '.join(unseen)}"
        return seen[worst] <= self.gate.max_class_drop, words, {"drops": {str(c): d for c, d in seen.items()}}

    def _group_gap(self) -> tuple[bool, str, dict[str, Any]]:
        limit, gaps = self.gate.max_gap, dict[str, float]()
        for name, counted in self.grouped(self.challenger).items():
            shares = [correct / rows for correct, rows in counted.values() if rows >= FEWEST_OF_GROUP]
            if len(shares) > 1:
                gaps[name] = max(shares) - min(shares)
        if not gaps or limit is None:
            raise _NotJudgeable(f"no group has two values with at least {FEWEST_OF_GROUP} held-out rows each")
        widest = max(gaps, key=gaps.__getitem__)
        words = f"largest gap between a group's accuracies: {gaps[widest]:.4f} ({widest}); allowed: at most {limit:.4f}"
        return gaps[widest] <= limit, words, {"gaps": gaps}

    def _no_champion(self) -> tuple[bool, str, dict[str, Any]]:
        return True, "no champion to compare with", {}

    def _score(self, evaluation: ModelEvaluation) -> float:
        return float(METRICS[self.gate.metric](self._matrix(evaluation)))

    def _matrix(self, evaluation: ModelEvaluation) -> Counts:
        return confusion(self.truth, self._answers(evaluation), self.codes)

    def _answers(self, evaluation: ModelEvaluation) -> Classes:
        if evaluation.predicted is None:
            who = "the challenger" if evaluation is self.challenger else f"version {evaluation.version}, in Production,"
            raise _NotJudgeable(f"{who} could not be scored: {evaluation.failure}")
        if len(self.truth) == 0:
            raise _NotJudgeable("there are no held-out rows")
        return evaluation.predicted


def _reason(gate: Gate, rules: tuple[Rule, ...], metrics: Mapping[str, Mapping[str, float]], rows: int) -> str:
    figures, compared = "", "better"
    if score := metrics["challenger"].get(gate.metric):
        figures = f"{gate.metric} {score:.4f}"
        if production := metrics.get("production", {}).get(gate.metric):
            figures += f" against {production:.4f} in Production, on the same {rows:,} held-out rows"
            compared = "better" if score > production else "not worse"
    failed = {rule.name: rule.words for rule in rules if not rule.holds}
    if not failed:
        return f"{compared}: {figures}" if "production" in metrics else f"{figures}; no champion to compare with"
    worse = bool(figures) and not failed.keys().isdisjoint(COMPARISONS)
    others = [f"{name}: {words}" for name, words in failed.items() if not (worse and name in COMPARISONS)]
    return "; ".join([f"not better: {figures}"] * worse + others)
