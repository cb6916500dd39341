"""The prediction log: each answered row, on its way to the data store."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.serving.write_queue import WriteQueue

if TYPE_CHECKING:
    # The process that writes the log does without it.
    from starlette.types import Scope


class LogEntry(NamedTuple):
    """One answered row. Cheap to create and to send to the process that writes it.

    `use_case` and `model` are names. `numbers` and `codes` are the row's, as in `Columns`; `answer` is its `Prediction`
    as JSON. Plain tuples and bytes, which the garbage collector need not look through while thousands of them wait. The
    row is number `row_no`, from 1, of the request's `rows`.
    """

    request_id: str
    trace_id: str | None
    at: float
    use_case: str
    model: str
    version: int
    numbers: Sequence[float]
    codes: Sequence[int]
    answer: bytes
    row_no: int = 1
    rows: int = 1


def ids_of(scope: "Scope") -> tuple[str, str | None]:
    """A request's id, which is the server's own, and what the client calls it."""
    return scope.get("dosel.request_id", ""), scope.get("dosel.trace_id")


class PredictionLog(WriteQueue[LogEntry]):
    """The queue of the prediction log.

    Args:
        capacity: length of the queue; 0 disables the log.
        write: stores all entries of a chunk, or none; see `app.serving.answer_writer`.
    """

    def __init__(self, capacity: int, write: Callable[[list[LogEntry]], None]) -> None:
        super().__init__("prediction log", capacity, write, _name)


def _name(entry: LogEntry) -> str:
    return f"{entry.request_id} row {entry.row_no}"
