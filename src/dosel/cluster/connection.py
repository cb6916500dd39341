"""A connection to the cluster that outlives the loss of workers and of the scheduler.

Tasks are functions of what they are given and read, so a lost task is submitted again, with the same result.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from dosel.cluster.preflight import check_workers, software
from dosel.cluster.security import security
from dosel.errors import ClusterError, ClusterTaskKilled, ClusterUnavailable
from dosel.settings import Settings

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 40.0
"""Seconds to wait for a scheduler, or for a first worker: Dask's own restart is over by then, or does not come."""

MOST_LOSSES = 5
"""Losses of the scheduler in a row, without a result in between, after which a search gives up."""

CALL_SECONDS = 10.0
CLOSE_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""Seconds without a result after which the workers are looked at."""

log = logging.getLogger(__name__)

Submit = Callable[["Client", str], "Future[Any]"]
"""Submits the task of that name."""


class _Lost(Exception):
    """The scheduler was lost with its tasks."""


class Cluster:
    """The cluster of this installation, connected at the first use. Threads may share it.

    A context manager: its end closes the connection, and the scheduler drops what was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self.address = settings.cluster
        self._security = security(settings)
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection for good; threads that wait for results get an error."""
        self._is_closed = True
        if self._client is not None:
            self._drop(self._client)

    def client(self) -> "Client":
        """The connected client; all workers that the cluster has at the time of connecting are checked.

        Raises:
            ClusterUnavailable: no scheduler or no worker within `PATIENCE` seconds.
            ClusterMismatch: a worker's software differs from the driver's.
        """
        with self._lock:
            if self._is_closed:
                raise ClusterUnavailable(f"the connection to {self.address} was closed")
            if self._client is None:
                self._client = self._connect()
            return self._client

    def cores(self) -> int:
        """The number of tasks that the workers run at the same time."""
        client = self.client()
        try:
            return sum(worker["nthreads"] for worker in _workers(client).values())
        except _Lost as error:
            self._drop(client)
            raise ClusterUnavailable(f"the Dask scheduler at {self.address} was lost; try again") from error

    def results(
        self, names: Iterable[str], submit: Submit, describe: Callable[[str], str]
    ) -> Iterator[tuple[str, Any]]:
        """Yield the name and the result of each task as soon as it is known, in any order.

        If the scheduler is lost, the tasks without a result are submitted to the next one.

        Args:
            submit: called again for the same name if the scheduler was lost.
            describe: a task in words, for error messages.

        Raises:
            ClusterUnavailable: the cluster could not be reached for `PATIENCE` seconds; try again.
            ClusterTaskKilled: a task was given up because its workers died.
            Exception: a task's own error.
        """
        missing, losses = list(names), 0
        while missing:
            client = self.client()
            try:
                for name, result in _round(self.address, client, missing, submit, describe):
                    missing.remove(name)
                    losses = 0
                    yield name, result
            except _Lost as error:
                log.warning("the scheduler at %s was lost; %d tasks are submitted again", self.address, len(missing))
                self._drop(client)
                losses += 1
                if losses == MOST_LOSSES:
                    raise ClusterUnavailable(
                        f"the Dask scheduler at {self.address} was lost {losses} times without a result; see its log"
                    ) from error

    def _connect(self) -> "Client":
        from distributed import Client

        deadline = monotonic() + PATIENCE
        try:
            client = Client(
                self.address, security=self._security, timeout=PATIENCE, set_as_default=False, name="dosel-training"
            )
        except (OSError, TimeoutError) as error:
            raise ClusterUnavailable(
                f"no Dask scheduler answers at {self.address} (DOSEL_CLUSTER) within {PATIENCE:.0f} s: {error}; is it "
                "running, with this certificate?"
            ) from error
        try:
            client.wait_for_workers(1, timeout=max(deadline - monotonic(), LOOK_SECONDS))
        except TimeoutError as error:
            client.close(timeout=CLOSE_SECONDS)
            raise _no_workers(self.address) from error
        try:
            check_workers(client, software(), CALL_SECONDS)
        except (CancelledError, OSError, TimeoutError) as error:
            client.close(timeout=CLOSE_SECONDS)
            raise ClusterUnavailable(
                f"the workers of the Dask scheduler at {self.address} do not answer: {error}; try again"
            ) from error
        except ClusterError:
            client.close(timeout=CLOSE_SECONDS)
            raise
        return client

    def _drop(self, client: "Client") -> None:
        """Close a client; the next use connects again."""
        with self._lock:
            if self._client is client:
                self._client = None
                client.close(timeout=CLOSE_SECONDS)


def _round(
    address: str, client: "Client", names: Iterable[str], submit: Submit, describe: Callable[[str], str]
) -> Iterator[tuple[str, Any]]:
    """Submit tasks to one scheduler and yield their results.

    Raises:
        _Lost: the scheduler was lost.
    """
    ended: SimpleQueue[str] = SimpleQueue()
    waiting: dict[str, Future[Any]] = {}
    watch = _Watch(address, client)
    with _losses():
        for name in list(names):
            waiting[name] = submit(client, name)
            waiting[name].add_done_callback(lambda _, name=name: ended.put(name))
    while waiting:
        watch.look()
        done = {name: waiting.pop(name) for name in _ready(ended)}
        for name, future in done.items():
            if future.status == "error":
                raise _explained(future.exception(), describe(name), watch)
            if future.status != "finished":
                raise _Lost
        try:
            results = _gathered(client, list(done.values()), watch)
        except Exception as error:
            # A result that was lost with its worker is computed again, which may fail.
            for name, future in done.items():
                if future.status == "error":
                    raise _explained(error, describe(name), watch) from error
            raise
        yield from zip(done, results, strict=True)


def _gathered(client: "Client", futures: "list[Future[Any]]", watch: "_Watch") -> list[Any]:
    """The results of finished tasks, in one call; one that was lost with its worker is computed again meanwhile."""
    if not futures:
        return []
    loop: Any = client.loop
    # Not the blocking call, which would wait for ever for a worker.
    results = asyncio.run_coroutine_threadsafe(client.gather(futures, asynchronous=True), loop.asyncio_loop)
    while not wait([results], LOOK_SECONDS).done:
        watch.look()
    with _losses():
        found: list[Any] = results.result()
        return found


@contextmanager
def _losses() -> Iterator[None]:
    """Raise _Lost for what Dask raises when the scheduler is gone."""
    try:
        yield
    except (CancelledError, OSError, TimeoutError) as error:
        raise _Lost from error


def _ready(ended: "SimpleQueue[str]") -> list[str]:
    """The names of tasks that ended; empty after `LOOK_SECONDS` without one."""
    names: list[str] = []
    try:
        names.append(ended.get(timeout=LOOK_SECONDS))
        while True:
            names.append(ended.get_nowait())
    except Empty:
        return names


class _Watch:
    """Looks at the workers now and then, since Dask itself waits for ever for workers to come."""

    def __init__(self, address: str, client: "Client") -> None:
        self._address = address
        self._client = client
        self._looked = 0.0
        self._seen = monotonic()
        self._most = 0.0, 0.0

    def look(self) -> None:
        """Look at the workers, if the last look is long enough ago.

        Raises:
            _Lost: the scheduler does not answer.
            ClusterUnavailable: there was no worker for `PATIENCE` seconds.
        """
        now = monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        workers = _workers(self._client)
        if workers:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise _no_workers(self._address)
        used = ((about.get("metrics", {}).get("memory", 0), about["memory_limit"]) for about in workers.values())
        self._most = max([self._most, *used])

    def memory(self) -> str:
        """The most memory that a worker was seen to use, and its limit."""
        used, limit = self._most
        return f"{used / 1e6:,.0f} MB of {limit / 1e6:,.0f} MB"


def _workers(client: "Client") -> Mapping[str, Any]:
    """The scheduler's workers by address.

    Raises:
        _Lost: the scheduler does not answer.
    """
    if client.status != "running" or client.scheduler is None:
        raise _Lost
    with _losses():
        found: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=CALL_SECONDS)
    workers: Mapping[str, Any] = found["workers"]
    return workers


def _no_workers(address: str) -> ClusterUnavailable:
    return ClusterUnavailable(
        f"the Dask scheduler at {address} had no worker for {PATIENCE:.0f} s; start workers, then try again"
    )


def _explained(error: BaseException, task: str, watch: _Watch) -> BaseException:
    """The error of a task, in the user's words where Dask raised it."""
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    worker = error.last_worker.address
    return ClusterTaskKilled(
        f"{task} was given up: {error.allowed_failures + 1} workers died that ran it or had it queued, the last one "
        f"{worker}. The most that a worker was seen to use is {watch.memory()}: if that is near the limit, give "
        "workers more memory; otherwise see the worker's log"
    )
