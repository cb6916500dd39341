"""The interface of every source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Batch:
    """One delivery of rows. `stream`, `epoch` and `number` identify it, also when it is fetched again.

    Attributes:
        source: the source's address, for the batch ledger.
        stream: name of the source's sequence, such as "group 6".
        epoch: changes when the source restarts its numbering; "" if the source has no epochs.
        number: the batch's number within its epoch, from 1.
        rows: rows as received, columns in declared order, the target last.
        coding: name of the source's class numbering.
    """

    source: str
    stream: str
    epoch: str
    number: int
    rows: Sequence[Sequence[Any]]
    coding: str = ""


class Source(Protocol):
    """A source of batches."""

    def next_batch(self) -> Batch | None:
        """The batch that is due, which may be one that was returned before; None if the source has ended.

        Raises:
            SourceError: the batch could not be fetched, after retries.
        """
        ...
