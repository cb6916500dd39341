"""What every source gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Batch:
    """One delivery. `stream`, `epoch` and `number` name it: asked for again, it has the same name.

    Attributes:
        source: the address it came from, for the record.
        stream: which of the source's independent sequences, such as "group 6".
        epoch: changes when the source starts its numbering over; "" if the source does not tell.
        number: counts up within an epoch, from 1.
        rows: as received, columns in declared order, the target last.
        coding: how the source numbers the classes.
    """

    source: str
    stream: str
    epoch: str
    number: int
    rows: Sequence[Sequence[Any]]
    coding: str = ""


class Source(Protocol):
    """Rows arrive in batches."""

    def next_batch(self) -> Batch | None:
        """The batch that is due, perhaps one that was given before; None when the source has no more.

        Raises:
            SourceError: it cannot be had, after the retries that made sense.
        """
        ...
