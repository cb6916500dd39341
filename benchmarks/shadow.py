"""Measures shadows: false promotions, labels until a decision, and the cost for the champion's answers.

    make bench-shadow            STREAMS=1000 sets the number of simulated streams
                                 PARTS="decisions canary serving rollback soak" chooses the measurements

Simulated versions answer the same rows: the champion is right on 80 % of them, a better challenger on 83 %. On 11 % of
the rows one is right and the other wrong, as with two forests of different size on covertype.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks import shadow_serving
from benchmarks.installation import say
from dosel.monitor.comparison import compare_arms
from dosel.monitor.pairs import Arm
from dosel.monitor.sequential import first_proof, log_evidence_of_gain
from dosel.usecases import Shadow, Target
from tests.soak import shadow as soak

ALPHA = 0.01
CHAMPION, CHALLENGER, DISCORDANT = 0.80, 0.83, 0.11
LABELS = 10_000
SHARES = (0.05, 0.2, 0.5)
CANARY_LABELS = 60_000
"""Labels of a canary's challenger and champion together, at most."""

Differences = npt.NDArray[np.int64]


def pairs(random: np.random.Generator, challenger: float, labels: int) -> Differences:
    """The difference of each row: 1 if only the challenger is right, -1 if only the champion is, else 0."""
    gain = challenger - CHAMPION
    only = (DISCORDANT + gain) / 2, (DISCORDANT - gain) / 2
    return random.choice(np.array([1, -1, 0]), size=labels, p=(*only, 1 - sum(only)))


def labels_until(differences: Differences | npt.NDArray[np.float64]) -> int | None:
    proof = first_proof(log_evidence_of_gain(differences), ALPHA)
    return None if proof is None else proof + 1


def decisions(streams: int) -> dict[str, object]:
    """Measure the paired test after every label, beside a split of the rows between the versions."""
    random, began = np.random.default_rng(1), time.perf_counter()
    equal = [labels_until(pairs(random, CHAMPION, LABELS)) for _ in range(streams)]
    better = [labels_until(pairs(random, CHALLENGER, LABELS)) for _ in range(streams)]
    # In the split, each row has a label for one version only, so that each difference needs two labels.
    split = [
        labels_until((random.random(LABELS) < CHALLENGER).astype(np.int64) - (random.random(LABELS) < CHAMPION))
        for _ in range(streams)
    ]
    false = sum(at is not None for at in equal) / streams
    paired, unpaired = _median(better), 2 * _median(split)
    say("| rows | promotions of an equal version | median labels to promote a better one | not decided |")
    say("|---|---:|---:|---:|")
    say(f"| both answer each | {false:.1%} | {paired:,.0f} | {better.count(None) / streams:.1%} |")
    say(f"| each answers half | – | {unpaired:,.0f} | {split.count(None) / streams:.1%} |")
    say(f"\n{streams:,} streams of {LABELS:,} rows, α = {ALPHA:.0%}, {time.perf_counter() - began:.0f} s")
    return {
        "streams": streams,
        "false_promotion": round(false, 4),
        "median_labels_to_promote": round(paired),
        "undecided": round(better.count(None) / streams, 4),
        "labels_saved": round(1 - paired / unpaired, 3),
    }


def canary(streams: int) -> dict[str, object]:
    """Labels that a canary needs for both versions together, by its share of the requests."""
    random, target = np.random.default_rng(2), Target("kind", "Kind", labels={0: "wrong", 1: "right"})
    say("\n| share of the canary | promotions of an equal version | median labels of both to promote a better one |")
    say("|---:|---:|---:|")
    found: dict[str, object] = {}
    for share in SHARES:
        rules, count = Shadow(share=share, sticky_by="x", min_labels=1, alpha=ALPHA), round(CANARY_LABELS * share)

        def needed(right: float, rules: Shadow = rules, count: int = count) -> float | None:
            arms = (_arm(random, right, count), _arm(random, CHAMPION, CANARY_LABELS - count))
            proof = compare_arms(target, rules, 1.0, *arms).proof
            return None if proof.finding != "better" or proof.after is None else proof.after / rules.share

        some = max(100, streams // 5)
        false = sum(needed(CHAMPION) is not None for _ in range(some)) / some
        labels = _median([needed(CHALLENGER) for _ in range(some)])
        say(f"| {share:.0%} | {false:.1%} | {labels:,.0f} |")
        found |= {f"canary_{round(share * 100)}_labels": round(labels), f"canary_{round(share * 100)}_false": false}
    return found


def _arm(random: np.random.Generator, right: float, rows: int) -> Arm:
    return Arm(np.ones(rows, np.int64), (random.random(rows) < right).astype(np.int64))


def _median(labels: list[int | None] | list[float | None]) -> float:
    """Streams without a decision count as longer than all others."""
    return float(median(float("inf") if at is None else at for at in labels))


def main() -> None:
    parser = argparse.ArgumentParser()
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "decisions": lambda: decisions(asked.streams),
        "canary": lambda: canary(asked.streams),
        "serving": shadow_serving.cost,
        "rollback": shadow_serving.rollback,
        "soak": lambda: soak.run(asked.operations, asked.kills),
    }
    parser.add_argument("parts", nargs="*", default=list(parts), help=f"any of {', '.join(parts)}; by default all")
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--operations", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=100)
    asked = parser.parse_args()
    result: dict[str, object] = {}
    for part in asked.parts:
        result |= parts[part]()
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main()
