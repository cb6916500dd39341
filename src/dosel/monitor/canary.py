"""Which version answers a request of a canary: equal values of the declared feature get the same one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, TypeVar

from dosel.rows.columns import UNKNOWN
from dosel.usecases import Category, Feature, Shadow, UseCase

if TYPE_CHECKING:
    # Importing it takes seconds, in which the API can already answer /healthz.
    from dosel.registry.shadows import ShadowRecord

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """Draws a version for each value of a feature, by a hash: all processes draw the same one."""

    feature: Feature
    share: float
    salt: str

    @classmethod
    def of(cls, use_case: UseCase, declared: Shadow, shadow: "ShadowRecord") -> "Draw | None":
        """The draw of a declared canary; None if clients get no answers of this shadow."""
        if not declared.share or shadow.role != "challenger":
            return None
        feature = next(feature for feature in use_case.features if feature.name == declared.sticky_by)
        return cls(feature, declared.share, f"{shadow.model} {shadow.number}")

    def takes(self, value: float) -> bool:
        """Whether the challenger answers a row with this number or code; without a value, the champion does."""
        if isinstance(self.feature, Category):
            return value != UNKNOWN and drawn(f"{self.salt} {value}") < self.share
        # Adding zero turns -0.0 into 0.0, which is an equal value.
        return not isnan(value) and drawn(f"{self.salt} {float(value) + 0.0}") < self.share

    def logged(self, value: object) -> float | None:
        """The number or code of a value of the prediction log; None without one."""
        if isinstance(self.feature, Category):
            values = self.feature.values
            return values.index(value) if isinstance(value, str) and value in values else None
        return float(value) if isinstance(value, int | float) else None


def first_of_each(
    rows: Iterable[tuple[float | None, int, T]], draw: Draw, challenger: int, champion: int
) -> tuple[list[T], list[T]]:
    """The first row of each value, of the challenger and of the champion.

    All rows with one value go to one version, so a value counts once, however many rows it has. Otherwise, a few values
    with easy rows would prove that the version that answers them is better. Two kinds of rows are left out: those
    without a value, and those of another version than the one drawn for the value, since a client named that version.

    Args:
        rows: the value, the version that answered, and what to return, of each row.
    """
    seen = set[float]()
    arms: dict[int, list[T]] = {challenger: [], champion: []}
    for value, version, row in rows:
        if value is not None and value not in seen and version == (challenger if draw.takes(value) else champion):
            seen.add(value)
            arms[version].append(row)
    return arms[challenger], arms[champion]


def drawn(text: str) -> float:
    """A number from 0 to 1 that depends on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64
