"""Lets challengers that are truly worse look at the same held-out rows, with and without the gate's budget of looks.

A challenger answers as the champion does, except on a random share of the rows. The gate is the real one.
"""

import numpy as np
import numpy.typing as npt

from benchmarks.installation import say
from dosel.registry.evaluations import JudgedRows, ModelEvaluation
from dosel.registry.gate import judge
from dosel.registry.looks import Look, share
from dosel.usecases import Gate, Target

ROWS, ACCURACY = 3_500, 0.85
CHANGED = 0.04
"""The share of rows on which a challenger differs from the champion."""
WORSE, BETTER = -0.005, 0.02
RUNS, TRIES = 100, 200
CHALLENGERS = (30, 100)
LOOKS = (1, 10, 30, 100)

TARGET = Target("kind", "Kind", {0: "no", 1: "yes"})
# Fewer resamples than by default, for speed: the interval's error is small beside the spread of the runs.
GATE = Gate(resamples=300)
Answers = npt.NDArray[np.int64]


def simulate() -> dict[str, object]:
    """Run both simulations and print their tables."""
    chance = np.random.default_rng(1)
    entered = {budget: [_first_entered(chance, budget) for _ in range(RUNS)] for budget in (False, True)}
    shares = {
        (budget, count): sum(number <= count for number in numbers) / RUNS
        for budget, numbers in entered.items()
        for count in CHALLENGERS
    }
    say(f"\n| challengers {-WORSE:.1%} worse | runs that let one in, without a budget | with it |\n|---:|---:|---:|")
    for count in CHALLENGERS:
        say(f"| {count} | {shares[False, count]:.0%} | {shares[True, count]:.0%} |")
    say(f"\n| at look | a challenger {BETTER:.0%} better enters, without a budget | with it |\n|---:|---:|---:|")
    for number in LOOKS:
        plain, spent = (_power(chance, number, budget) for budget in (False, True))
        say(f"| {number} | {plain:.0%} | {spent:.0%} |")
    return {"overfit_without": shares[False, CHALLENGERS[-1]], "overfit_with": shares[True, CHALLENGERS[-1]]}


def _first_entered(chance: np.random.Generator, budget: bool) -> int:
    """The number of the first worse challenger that passes; one more than all if none does."""
    truth, champion = _champion(chance)
    for number in range(1, CHALLENGERS[-1] + 1):
        if _passes(truth, champion, _challenger(chance, truth, champion, WORSE), number, budget):
            return number
    return CHALLENGERS[-1] + 1


def _power(chance: np.random.Generator, number: int, budget: bool) -> float:
    """How often a better challenger passes at this look."""
    passed = 0
    for _ in range(TRIES):
        truth, champion = _champion(chance)
        passed += _passes(truth, champion, _challenger(chance, truth, champion, BETTER), number, budget)
    return passed / TRIES


def _champion(chance: np.random.Generator) -> tuple[Answers, Answers]:
    truth = chance.integers(0, 2, ROWS)
    return truth, np.where(chance.random(ROWS) < ACCURACY, truth, 1 - truth)


def _challenger(chance: np.random.Generator, truth: Answers, champion: Answers, gain: float) -> Answers:
    lost, won = (CHANGED - gain) / 2, (CHANGED + gain) / 2
    right = champion == truth
    changed = chance.random(ROWS) < np.where(right, lost / ACCURACY, won / (1 - ACCURACY))
    return np.where(changed, 1 - champion, champion)


def _passes(truth: Answers, champion: Answers, challenger: Answers, number: int, budget: bool) -> bool:
    seen = number - 1.0
    look = Look(number, GATE.looks, seen, share(GATE.looks, seen) if budget else 1.0)
    versions = [
        ModelEvaluation(version, predicted, split="s", answered={0: 1.0, 1: 0.0}, recorded={0: 1.0, 1: 0.0})
        for version, predicted in ((number + 1, challenger), (1, champion))
    ]
    return judge(GATE, TARGET, JudgedRows(truth, "s", look), versions[0], versions[1], seed=number).passed
