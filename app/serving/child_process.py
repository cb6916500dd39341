"""A child process of the API that answers calls over a socket."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

STOP_SECONDS = 5.0
"""How long `close` waits for a call, and then for the process."""


class ChildGone(Exception):
    """The process ended during a call, or did not answer in time; the next call starts another one.

    `code` is its exit code, as in `Popen.returncode`; None if it could not be started.
    """

    def __init__(self, reason: BaseException, code: int | None) -> None:
        self.code = code
        ended = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        super().__init__(str(reason) if code is None else f"{ended}, {reason!r}")


class ChildProcess:
    """A process that starts with the first call, and again after it has died. Several threads may call it.

    Args:
        module: run as `python -m MODULE FD`; it answers each message from the socket FD until the other end is closed.
        seconds: how long a call may take.
        keeps: whether the process may hold something that must not be lost; otherwise the API kills it at the end.
        opening: called with `ask` when a process has started, before the first call. What it raises, the call raises.
    """

    def __init__(
        self, module: str, seconds: float, keeps: bool = True, opening: "Callable[[Ask], None]" = lambda ask: None
    ) -> None:
        self._module = module
        self._seconds = seconds
        self._keeps = keeps
        self._opening = opening
        self._lock = threading.Lock()
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None

    def call(self, message: bytes) -> bytes:
        """The process's answer to a message.

        Raises:
            ChildGone: the process ended or hangs.
        """
        with self._lock:
            try:
                if self._running is None:
                    self._start()
                return self._ask(message)
            except (OSError, EOFError) as error:
                raise ChildGone(error, self._end()) from error

    def close(self, patience: float | None = None) -> None:
        """End the process. A later call starts another one.

        Args:
            patience: seconds after which the process is killed if a call is under way; by default `STOP_SECONDS`.
        """
        running = self._running
        if not self._lock.acquire(timeout=STOP_SECONDS if patience is None else patience):
            if running is not None:
                running[0].kill()
            # The call has failed now, and leaves the lock.
            self._lock.acquire()
        try:
            self._end()
        finally:
            self._lock.release()

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", self._module, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._running = process, ours
        try:
            self._opening(self._ask)
        except BaseException:
            self._end()
            raise

    def _ask(self, message: bytes) -> bytes:
        assert self._running is not None
        _, connection = self._running
        connection.send_bytes(message)
        if not connection.poll(self._seconds):
            raise TimeoutError(f"no answer in {self._seconds:.0f} s")
        return connection.recv_bytes()

    def _end(self) -> int | None:
        """End the process; return its exit code."""
        if self._running is None:
            return None
        process, connection = self._running
        self._running = None
        if not self._keeps and process.poll() is None:
            process.kill()
        connection.close()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


Ask = Callable[[bytes], bytes]


def answer_calls(descriptor: str, answer: Ask) -> None:
    """In the child: answer each message until the API has closed its end."""
    with Connection(int(descriptor)) as connection, suppress(EOFError):
        while True:
            connection.send_bytes(answer(connection.recv_bytes()))
