"""Has rows scored by versions in shadow: in a process that runs only while a processor has nothing else to do.

In a thread of the API, each row would hold the interpreter's lock for some ten microseconds, and requests would wait
for it. A version that crashes ends its process and not the API.

python -m app.serving.shadow_scorer FD     reads calls from the socket FD until its other end is closed
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from app.serving.child_process import ChildGone, ChildProcess, answer_calls
from app.serving.prediction_log import LogEntry
from dosel.errors import DoselError
from dosel.warehouse.shadow_answer import ShadowAnswer

if TYPE_CHECKING:
    from app.serving.loaded_model import LoadedModel
    from dosel.model.predictor import Predictor

CALL_SECONDS = 600.0
"""How long a call may take. While others use all processors, the process gets next to no time."""

CPU_SECONDS = 60
"""Processor time that a call may take; a version that needs more hangs."""

ATTEMPTS = 2
"""How many times the process may end in one call: somebody may have killed it."""

_MODEL, _ROWS = b"m", b"r"
_NEEDS_MODEL, _SCORED, _FAILED = b"n", b"s", b"f"

NOT_NUMBERS = "it gave probabilities that are not numbers"

Row = tuple[LogEntry, float | None]
"""A row that the champion has answered, and the milliseconds of processor time of that, if known."""


class ScoringFailed(Exception):
    """A version did not score rows. The message says why, without the rows' values."""


class Scored(msgspec.Struct, array_like=True):
    """The answers for rows, encoded once, by the process that scored them: `answers_of` reads them.

    `one_ms` is the milliseconds of processor time of one row. `seconds` is the processor time that the scoring process
    used for the call; 0 if the calling thread scored the rows.
    """

    answers: bytes
    one_ms: float
    seconds: float = 0.0


class ShadowScorer(Protocol):
    """Scores rows with a version. For one thread only, but for `release` and `close`."""

    def score(self, loaded: "LoadedModel", number: int, rows: Sequence[Row]) -> Scored:
        """The answers of the model's shadow `number` for at least one row.

        Raises:
            ScoringFailed: the version could not.
        """

    def release(self) -> None:
        """Free the memory of versions that are no longer in shadow."""

    def close(self) -> None:
        """End, without waiting for a call."""


class DirectScorer:
    """A `ShadowScorer` that scores in the calling thread."""

    def score(self, loaded: "LoadedModel", number: int, rows: Sequence[Row]) -> Scored:
        return scored(loaded.predictor, loaded.version.name, number, rows)

    def release(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing runs."""


class ScoringProcess:
    """A `ShadowScorer` with a process of its own, which starts with the first rows."""

    def __init__(self) -> None:
        # At idle priority it could take minutes to end by itself.
        self._process = ChildProcess(__name__, CALL_SECONDS, keeps=False)
        self._closed = False

    def score(self, loaded: "LoadedModel", number: int, rows: Sequence[Row]) -> Scored:
        answer = self._asked(loaded, _Rows(_key(loaded), CPU_SECONDS, loaded.version.name, number, rows))
        if answer[:1] == _FAILED:
            raise ScoringFailed(answer[1:].decode())
        try:
            return _scored_of(answer[1:])
        except msgspec.DecodeError as error:
            raise ScoringFailed("the process that answers in shadow gave an unreadable answer") from error

    def release(self) -> None:
        # The next rows start another one.
        self._process.close()

    def close(self) -> None:
        self._closed = True
        self._process.close(patience=0)

    def _asked(self, loaded: "LoadedModel", rows: "_Rows") -> bytes:
        message = _ROWS + _encoded(rows)
        for _ in range(ATTEMPTS):
            if self._closed:
                raise ScoringFailed("the API stops")
            try:
                answer = self._process.call(message)
                if answer == _NEEDS_MODEL:
                    self._process.call(_MODEL + _pickled(rows.key, loaded.predictor))
                    answer = self._process.call(message)
            except ChildGone as error:
                gone = error
                if error.code == -signal.SIGPROF:
                    raise ScoringFailed(
                        f"it took more than {rows.cpu_seconds} s of processor time for {len(rows.rows)} rows"
                    ) from error
            else:
                return answer
        raise ScoringFailed(f"the process that answers in shadow ended {ATTEMPTS} times ({gone})") from gone


class _Rows(msgspec.Struct, array_like=True):
    key: str
    cpu_seconds: float
    model: str
    number: int
    rows: Sequence[Row]


_encoded = msgspec.msgpack.Encoder().encode
_rows_of = msgspec.msgpack.Decoder(_Rows).decode
_scored_of = msgspec.msgpack.Decoder(Scored).decode
_as_json = msgspec.json.Encoder().encode

answers_of = msgspec.msgpack.Decoder(list[ShadowAnswer]).decode


def scored(predictor: "Predictor", model: str, number: int, rows: Sequence[Row]) -> Scored:
    """Score rows in this thread: together, which is many times cheaper, and one by itself, as a request would be.

    Raises:
        ScoringFailed: the model raised an exception, or gave probabilities that are not numbers.
    """
    first, began = rows[0][0], time.thread_time()
    try:
        predictor.one(first.numbers, first.codes)
        one_ms = (time.thread_time() - began) * 1000
        numbers = np.array([entry.numbers for entry, _ in rows], np.float64).reshape(len(rows), -1)
        codes = np.array([entry.codes for entry, _ in rows], np.intp).reshape(len(rows), -1)
        scores = predictor.scores(numbers, codes)
    except Exception as error:  # a model may raise whatever it likes
        raise ScoringFailed(not_answered(error)) from error
    if not np.isfinite(scores.probabilities).all():
        raise ScoringFailed(NOT_NUMBERS)
    answers = []
    for place, (entry, champion_ms) in enumerate(rows):
        answer = predictor.at(scores, place)
        probabilities = _as_json(answer.probabilities).decode()
        answers.append(
            ShadowAnswer(
                model,
                number,
                entry.request_id,
                entry.row_no,
                entry.at,
                probabilities,
                answer.prediction,
                one_ms,
                champion_ms,
            )
        )
    return Scored(_encoded(answers), one_ms)


def not_answered(error: Exception) -> str:
    """Why a version did not answer, without the error's message, which may contain a row's values."""
    return f"it could not answer a row ({type(error).__name__})"


def _pickled(key: str, predictor: "Predictor") -> bytes:
    try:
        return pickle.dumps((key, predictor))
    except Exception as error:  # its file may have been changed, for example
        reason = str(error) if isinstance(error, DoselError) else type(error).__name__
        raise ScoringFailed(f"it cannot be sent to the process that answers in shadow ({reason})") from error


def _key(loaded: "LoadedModel") -> str:
    return f"{loaded.version.name} {loaded.version.version} {loaded.manifest}"


def main(descriptor: str) -> None:
    """Answer calls until the API has closed its end."""
    # Ctrl-C and the end of a container reach the whole group; the API closes its end when it stops.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _be_idle()
    answer_calls(descriptor, _Scoring().answer)


class _Scoring:
    """What the process does with each message."""

    def __init__(self) -> None:
        self._predictors: dict[str, Predictor] = {}

    def answer(self, message: bytes) -> bytes:
        kind, content = message[:1], message[1:]
        if kind == _MODEL:
            # From the API, which has verified the version.
            key, self._predictors[key] = pickle.loads(content)
            return _SCORED
        rows = _rows_of(content)
        predictor = self._predictors.get(rows.key)
        if predictor is None:
            return _NEEDS_MODEL
        began = time.process_time()
        # The kernel ends the process after so much processor time, whatever the model does with it.
        signal.setitimer(signal.ITIMER_PROF, rows.cpu_seconds)
        try:
            found = scored(predictor, rows.model, rows.number, rows.rows)
        except ScoringFailed as error:
            return _FAILED + str(error).encode()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        found.seconds = time.process_time() - began
        return _SCORED + _encoded(found)


def _be_idle() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        # Not Linux, or not allowed in this container.
        os.nice(19)


if __name__ == "__main__":
    main(*sys.argv[1:])
