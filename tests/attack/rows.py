"""An attack that reconstructs training rows from the distances in explanations.

The distances of two rows, one step above and below in one number, to their nearest training row reveal the
number's scale and the training row's value. On a use case that shows its rows, the attack has to succeed: otherwise its
failure on one that does not show them would say nothing.
"""

import json
from typing import Any

import numpy as np

from dosel.usecases.covertype import COVERTYPE
from external.generator import generate
from tests.attack.bodies import JSON
from tests.attack.target import Attack, Outcome, Target, ask

ROWS = 12
STEP = 1
NUMBERS = [number.name for number in COVERTYPE.numbers]


def reconstructed(port: int, found: Outcome) -> int:
    """The number of training rows whose numbers were reconstructed exactly, compared with the API's own neighbours."""
    return sum(_reconstructs(port, row, found) for row in _starts())


def _starts() -> list[dict[str, Any]]:
    """Rows that are probably near a training row and not near the bounds."""
    rows = generate(ROWS, seed=77)[NUMBERS].to_numpy()
    return [dict(COVERTYPE.example) | dict(zip(NUMBERS, np.maximum(row, 5).tolist(), strict=True)) for row in rows]


def _reconstructs(port: int, row: dict[str, Any], found: Outcome) -> bool:
    here = _nearest(port, row, found)
    if here is None:
        return False
    guessed = {}
    for name in NUMBERS:
        up, down = (_nearest(port, row | {name: row[name] + step}, found) for step in (STEP, -STEP))
        if up is None or down is None:
            return False
        curve = (up["distance"] ** 2 + down["distance"] ** 2 - 2 * here["distance"] ** 2) / 2
        slope = (up["distance"] ** 2 - down["distance"] ** 2) / 4
        guessed[name] = row[name] - slope / curve * STEP if curve > 0 else row[name]
    truth = here.get("row")
    return truth is not None and bool(np.allclose([guessed[n] for n in NUMBERS], [truth[n] for n in NUMBERS], atol=0.5))


def _nearest(port: int, row: dict[str, Any], found: Outcome) -> dict[str, Any] | None:
    status, answer = ask(port, "POST", "/explain/covertype?contributions=false", json.dumps(row).encode(), JSON)
    found.answers[status] += 1
    near: list[dict[str, Any]] = json.loads(answer).get("neighbours", []) if status == "200" else []
    return near[0] if near and "distance" in near[0] else None


def reads_training_rows(target: Target) -> Outcome:
    found = Outcome()
    if not reconstructed(target.port, Outcome()):
        found.failed = "the attack finds no row even where rows are shown: it measures nothing"
    found.rows_reconstructed = reconstructed(target.closed_port, found)
    return found


ATTACKS = (Attack("training rows by their distances", "reconstruct a row that is not shown", reads_training_rows),)
