"""Measures the harm test beside two common rules, the estimated accuracy beside NannyML's, the log and feedback.

    make bench-monitor           STREAMS=1000 sets the number of streams of the harm test
                                 PARTS="harm label-free feedback serving" chooses the measurements
                                 BEFORE=folder compares serving with another checkout instead of without the log

Each stream is looked at after every label. The held-out figure comes from 2,000 rows of its own for each stream.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks import label_free, log_and_feedback
from benchmarks.installation import say
from dosel.monitor.health import ACCURACY_SHARE
from dosel.monitor.sequential import Tally, first_proof, log_evidence_of_harm, share_of_budget

ALPHA = 0.01
HELD_OUT, LABELS = 2_000, 10_000
TEN_TIMES = 10 * LABELS
"""Labels after which a fall that the harm test has still not found is counted."""
BEFORE, AFTER = 0.85, 0.80
A_DAY = 500
"""Labels between two checks of the daily test."""
FIXED_FALL, FIXED_WINDOW = 0.03, 500
"""The threshold rule alarms when the last labels' accuracy is this much below the held-out figure."""

Looks = npt.NDArray[np.int64]
Rule = Callable[[Tally, Looks], int | None]


def harm_test(promised: Tally, correct: Looks) -> int | None:
    """Labels until the alarm, as the monitor tests the accuracy of a use case's first version."""
    labels = np.arange(1, len(correct) + 1)
    proof = first_proof(log_evidence_of_harm(promised, correct, labels), ACCURACY_SHARE * share_of_budget(ALPHA, 1))
    return None if proof is None else proof + 1


def fixed_threshold(promised: Tally, correct: Looks) -> int | None:
    window = correct[FIXED_WINDOW:] - correct[:-FIXED_WINDOW]
    low = np.flatnonzero(window / FIXED_WINDOW < promised.rate - FIXED_FALL)
    return int(low[0]) + FIXED_WINDOW + 1 if len(low) else None


def daily_z_test(promised: Tally, correct: Looks) -> int | None:
    """A two-sample z-test of all labels so far, at the same error rate, once a day."""
    labels = np.arange(A_DAY, len(correct) + 1, A_DAY)
    right = correct[labels - 1]
    pooled = (right + promised.correct) / (labels + promised.total)
    error = np.sqrt(pooled * (1 - pooled) * (1 / labels + 1 / promised.total))
    low = np.flatnonzero((right / labels - promised.rate) / error < norm.ppf(ALPHA))
    return int(labels[low[0]]) if len(low) else None


def not_found_for_long(streams: int, seed: int) -> int:
    """The streams of `alarms` in which the harm test finds no fall in ten times as many labels either."""
    random, count = np.random.default_rng(seed), 0
    for number in range(streams):
        promised, correct = stream(AFTER, random)
        if harm_test(promised, correct) is None:
            later = np.random.default_rng((seed, number)).random(TEN_TIMES - LABELS) < AFTER
            count += harm_test(promised, np.append(correct, correct[-1] + np.cumsum(later, dtype=np.int64))) is None
    return count


def stream(live: float, random: np.random.Generator) -> tuple[Tally, Looks]:
    """A held-out figure of its own, and the number of correct answers after each label."""
    promised = Tally(int(random.binomial(HELD_OUT, BEFORE)), HELD_OUT)
    return promised, np.cumsum(random.random(LABELS) < live, dtype=np.int64)


RULES: dict[str, Rule] = {"harm test": harm_test, "fixed threshold": fixed_threshold, "daily z-test": daily_z_test}


def alarms(live: float, streams: int, seed: int) -> dict[str, list[int | None]]:
    """Labels until each rule's alarm in each stream; the rules see the same streams."""
    random = np.random.default_rng(seed)
    found: dict[str, list[int | None]] = {name: [] for name in RULES}
    for _ in range(streams):
        promised, correct = stream(live, random)
        for name, rule in RULES.items():
            found[name].append(rule(promised, correct))
    return found


def harm(streams: int) -> dict[str, object]:
    began = time.perf_counter()
    unchanged, fallen = alarms(BEFORE, streams, seed=1), alarms(AFTER, streams, seed=2)
    say("| rule | alarms without a change | median labels until a fall from 0.85 to 0.80 is found | not found |")
    say("|---|---:|---:|---:|")
    result: dict[str, object] = {"streams": streams}
    for name in RULES:
        false = sum(at is not None for at in unchanged[name]) / streams
        found = [at for at in fallen[name] if at is not None]
        labels, missed = median(found), 1 - len(found) / streams
        say(f"| {name} | {false:.1%} | {labels:,.0f} | {missed:.1%} |")
        suffix = "" if name == "harm test" else "_" + name.replace(" ", "_").replace("-", "_")
        result |= {
            f"false_alarm_rate{suffix}": round(false, 4),
            f"median_labels_to_harm{suffix}": round(labels),
            f"missed{suffix}": round(missed, 4),
        }
    result["missed_in_ten_times_the_labels"] = missed = round(not_found_for_long(streams, seed=2) / streams, 4)
    say(f"\nThe harm test has not found {missed:.1%} of the falls after {TEN_TIMES:,} labels.")
    say(f"{streams:,} streams of {LABELS:,} labels each way, {time.perf_counter() - began:.0f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "harm": lambda: harm(asked.streams),
        "label-free": label_free.compare,
        "feedback": log_and_feedback.feedback_rows_per_s,
        "serving": lambda: log_and_feedback.serving_ratio(asked.before),
    }
    parser.add_argument("parts", nargs="*", default=list(parts), help=f"any of {', '.join(parts)}; by default all")
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--before", type=Path, help="another checkout, to compare serving with")
    asked = parser.parse_args()
    result: dict[str, object] = {}
    for part in asked.parts:
        result |= parts[part]()
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main()
