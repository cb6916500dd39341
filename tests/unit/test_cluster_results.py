"""Results of tasks on a Dask cluster, with a client that fails on purpose."""

from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker

from dosel.cluster import connection
from dosel.errors import ClusterTaskKilled


@pytest.fixture
def future(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A finished task whose result is lost with its worker before it is read."""
    made = SimpleNamespace(status="finished")
    made.add_done_callback = lambda call: call(made)
    monkeypatch.setattr(connection, "_workers", lambda _: {"w": {"metrics": {"memory": 3e6}, "memory_limit": 5e6}})
    return made


def results(future: Any) -> list[Any]:
    client: Any = None
    return list(connection._round("tls://s", client, ["score-1"], lambda *_: future, lambda name: f"fitting {name}"))


@pytest.mark.parametrize("task", ["score-1", "fold-1"])
def test_workers_that_die_when_a_lost_result_is_computed_again_are_explained(
    task: str, future: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(*_: Any) -> list[Any]:
        future.status = "error"
        raise KilledWorker(task, SimpleNamespace(address="tls://w"), 2)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "_gathered", gathered)
    with pytest.raises(ClusterTaskKilled, match=r"^fitting score-1 was given up: 3 workers died .* 3 MB of 5 MB"):
        results(future)


def test_a_failure_of_no_task_is_raised_as_it_is(future: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(*_: Any) -> list[Any]:
        raise MemoryError

    monkeypatch.setattr(connection, "_gathered", gathered)
    with pytest.raises(MemoryError):
        results(future)
