"""Simulated drift: DATA_API_DRIFT=batch=6,kind=concept,size=0.3 changes the batches from the sixth on."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from external.columns import COVER
from external.sampling import SLICES

Kind = Literal["label", "covariate", "concept", "soiled"]

_KEYS = {"batch", "kind", "size"}
_HEIGHT = "Elevation"
_UNREADABLE = "n/a?"


@dataclass(frozen=True)
class Drift:
    """What changes, from which batch on, and how much.

    Attributes:
        batch: the first batch that is changed, 1 to 10.
        kind: `label`: rare classes become as frequent as others. `covariate`: higher cells are chosen. `concept`: the
            two most frequent classes, Spruce/Fir and Lodgepole Pine, exchange their labels. `soiled`: a measurement
            cannot be read.
        size: the share of a batch's rows that is changed, above 0 up to 1.
    """

    batch: int
    kind: Kind
    size: float = 0.3

    def describe(self) -> dict[str, object]:
        return vars(self)

    def resample(self, rows: pd.DataFrame, seed: tuple[int, ...]) -> pd.DataFrame:
        """As many rows as before: a share of them is drawn again from these rows, with other weights.

        Args:
            rows: coded rows of a batch (see `external.columns`).
            seed: equal seeds give equal rows.
        """
        if self.kind not in ("label", "covariate"):
            return rows
        random = np.random.default_rng((*seed, 1))
        if self.kind == "label":
            weights = 1 / rows[COVER].map(rows[COVER].value_counts()).to_numpy(dtype=np.float64)
        else:
            # From the lowest cell to the highest, weights rise from 1 to about 400.
            weights = np.exp(6 * rows[_HEIGHT].rank(pct=True).to_numpy(dtype=np.float64))
        changed = random.random(len(rows)) < self.size
        drawn = random.choice(len(rows), int(changed.sum()), p=weights / weights.sum())
        places = np.arange(len(rows))
        places[changed] = drawn
        return rows.iloc[places]

    def change(self, words: list[list[str]], first_class: int, seed: tuple[int, ...]) -> list[list[str]]:
        """Rows as they are sent, some with another label or an unreadable measurement."""
        if self.kind not in ("concept", "soiled"):
            return words
        changed = np.random.default_rng((*seed, 2)).random(len(words)) < self.size
        return [self._changed(row, first_class) if hit else row for row, hit in zip(words, changed, strict=True)]

    def _changed(self, row: list[str], first_class: int) -> list[str]:
        if self.kind == "soiled":
            return [_UNREADABLE, *row[1:]]
        exchanged = {str(first_class): str(first_class + 1), str(first_class + 1): str(first_class)}
        return [*row[:-1], exchanged.get(row[-1], row[-1])]


def parse(text: str) -> Drift | None:
    """The drift that a setting describes; None for an empty one.

    Raises:
        ValueError: the text is not `batch=…,kind=…,size=…`.
    """
    if not text.strip():
        return None
    found = dict(re.findall(r"\s*(\w+)\s*=\s*([^,]*?)\s*(?:,|$)", text))
    kinds = get_args(Kind)
    try:
        drift = Drift(int(found["batch"]), found["kind"], float(found.get("size", Drift.size)))
    except (KeyError, ValueError):
        drift = None
    valid = drift is not None and found.keys() <= _KEYS and found.get("kind") in kinds
    if drift is None or not valid or not 1 <= drift.batch <= SLICES or not 0 < drift.size <= 1:
        raise ValueError(
            f"write batch=1 to {SLICES}, kind={' or '.join(kinds)}, and size above 0 up to 1, "
            "such as batch=6,kind=concept,size=0.3"
        )
    return drift
