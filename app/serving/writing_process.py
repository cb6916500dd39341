"""Writes answers to the data store in a process of its own.

In a thread of the API, the writer would take the interpreter's lock some fifty times a second, and each time a request
would wait for it: most of the slowest requests were those.

python -m app.serving.writing_process FD     reads calls from the socket FD until its other end is closed
"""

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.serving.answer_writer import AnswerWriter, DirectWriter
from app.serving.child_process import ChildGone, ChildProcess, answer_calls
from app.serving.prediction_log import LogEntry
from app.serving.write_queue import NotStored
from dosel.errors import DoselError, WarehouseError
from dosel.model import fingerprint
from dosel.usecases import ALL, UseCase

NICENESS = 5
"""Niceness of the process above that of the API process."""

CALL_SECONDS = 400.0
"""How long a call may take: longer than the data store's own limits for a lock and a statement together."""

_OPENING, _ANSWERS, _IN_SHADOW = b"o", b"a", b"s"
_DONE, _TRY_AGAIN, _REFUSED = b"d", b"t", b"r"

_encoded = msgspec.msgpack.Encoder().encode


class _Opening(msgspec.Struct, array_like=True):
    """The first message: the data store, and the digest of what each use case's columns mean, by its name."""

    warehouse_url: str
    most_rows: int
    declared: dict[str, str]


class WritingProcess:
    """An `AnswerWriter` that writes in a process of its own.

    An answer is stored once, also if the process dies after the data store has it: the next call's same answer is left
    out.
    """

    def __init__(self, warehouse_url: str, most_rows: int, use_cases: Sequence[UseCase]) -> None:
        opening = _OPENING + _encoded(_Opening(warehouse_url, most_rows, _digests(use_cases)))
        self._process = ChildProcess(__name__, CALL_SECONDS, opening=lambda ask: _raise(ask(opening)))

    def answers(self, entries: list[LogEntry]) -> None:
        self._call(_ANSWERS, entries)

    def in_shadow(self, blocks: list[bytes]) -> None:
        self._call(_IN_SHADOW, blocks)

    def close(self) -> None:
        """End the process; kill it if a call hangs, so that the API can stop."""
        self._process.close()

    def _call(self, kind: bytes, entries: Sequence[Any]) -> None:
        try:
            answer = self._process.call(kind + _encoded(entries))
        except ChildGone as error:
            raise WarehouseError(
                f"the process that writes answers has ended or hangs ({error}); another one is started"
            ) from error
        _raise(answer)


def _raise(answer: bytes) -> None:
    kind, text = answer[:1], answer[1:].decode()
    if kind == _TRY_AGAIN:
        raise WarehouseError(text)
    if kind == _REFUSED:
        raise NotStored(text)


def _digests(use_cases: Sequence[UseCase]) -> dict[str, str]:
    return {
        use_case.name: hashlib.sha256(_encoded(fingerprint.declaration(use_case))).hexdigest() for use_case in use_cases
    }


def main(descriptor: str) -> None:
    """Answer calls until the API has closed its end."""
    # Ctrl-C and the end of a container reach the whole group; the API still writes what waits.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    answer_calls(descriptor, _Writing().answer)


class _Writing:
    """What the process does with each message."""

    _writer: AnswerWriter

    def answer(self, message: bytes) -> bytes:
        kind, content = message[:1], message[1:]
        return _result({_OPENING: self._open, _ANSWERS: self._answers, _IN_SHADOW: self._in_shadow}[kind], content)

    def _open(self, content: bytes) -> None:
        opening = msgspec.msgpack.decode(content, type=_Opening)
        _compare(opening.declared)
        mine = [use_case for use_case in ALL if use_case.name in opening.declared]
        self._writer = DirectWriter(opening.warehouse_url, opening.most_rows, mine)

    def _answers(self, content: bytes) -> None:
        self._writer.answers(msgspec.msgpack.decode(content, type=list[LogEntry]))

    def _in_shadow(self, content: bytes) -> None:
        self._writer.in_shadow(msgspec.msgpack.decode(content, type=list[bytes]))


def _result(work: Callable[[bytes], None], content: bytes) -> bytes:
    try:
        work(content)
    except DoselError as error:
        return _TRY_AGAIN + str(error).encode()
    except Exception as error:  # noqa: BLE001  a driver may raise whatever it likes
        # Without the error's message, which may contain a row's values.
        return _REFUSED + type(error).__name__.encode()
    return _DONE


def _compare(then: Mapping[str, str]) -> None:
    """Check that the declarations are those with which the API started, since entries name no columns."""
    now = _digests(ALL)
    if changed := sorted(name for name in then if now.get(name) != then[name]):
        raise WarehouseError(
            f"the declaration of {', '.join(changed)} has changed since the API started; restart the API"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
