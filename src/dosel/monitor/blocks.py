"""Labelled rows of a closed use case: those of batches count in whole blocks, so that no single row changes a result.

Feedback counts at once. A client chooses its own labels, so that a block would not hide another client's label.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dosel.closed import BLOCK


class Labelled(Protocol):
    """Labelled rows of one batch, or of feedback; a dataclass."""

    @property
    def source(self) -> str: ...


Part = TypeVar("Part", bound=Labelled)


def in_blocks(parts: Sequence[Part], fields: Sequence[str]) -> list[Part]:
    """The same parts, with the rows of batches in whole blocks only, in the part whose rows complete a block.

    Args:
        fields: the attributes of a part that are arrays of shape (rows,).

    Returns:
        The parts without the newest rows of batches, as far as they do not fill a block yet.
    """
    found: list[Part] = []
    rest: dict[str, npt.NDArray[Any]] = {}
    for part in parts:
        if part.source != "batch":
            found.append(part)
            continue
        rows = {name: np.concatenate([*([rest[name]] if rest else []), getattr(part, name)]) for name in fields}
        whole = len(rows[fields[0]]) // BLOCK * BLOCK
        if whole:
            found.append(replace(part, **{name: of[:whole] for name, of in rows.items()}))  # type: ignore[type-var]
        rest = {name: of[whole:] for name, of in rows.items()}
    return found
