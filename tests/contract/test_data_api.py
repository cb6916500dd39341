"""The contract of the course's data API, tested against a real server process."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from external.settings import Settings, StartError
from external.state import Exhausted, Position, State

ROOT = Path(__file__).parents[2]
EXHAUSTED = {"detail": "Ya se recolectó toda la información minima necesaria"}
NO_SUCH_GROUP = {"detail": "Número de grupo inválido"}
GROUPS = range(1, 11)


class Server:
    """A data API in its own process; `state` is its folder."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state = state
        self.process = start(state, **environment)
        assert self.process.stderr is not None
        output = []
        for line in self.process.stderr:
            output.append(line)
            if running := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            raise AssertionError("".join(output))
        self.client = httpx.Client(base_url=running[1], timeout=30)
        assert self.client.get("/health").json()["status"] == "ok"

    def data(self, group: int, **parameters: str) -> httpx.Response:
        return self.client.get("/data", params={"group_number": group, **parameters})

    def restart(self, group: int) -> httpx.Response:
        return self.client.get("/restart_data_generation", params={"group_number": group})

    def timestamps(self) -> dict[str, list[float]]:
        positions: dict[str, list[float]] = json.loads((self.state / "timestamps.json").read_text())
        return positions

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.client.close()
        self.process.send_signal(how)
        self.process.communicate()


def start(state: Path, **environment: str) -> "subprocess.Popen[str]":
    ours = {name.upper() for name in Settings.model_fields}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    # With port 0, the system chooses a port, which the log names.
    return subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *["--factory", "external.main:create_app", "--no-access-log", "--port", "0"]],
        cwd=ROOT,
        env=clean
        | {"DATA_API_STATE_DIR": str(state), "DATA_API_FETCH": "never", "DATA_API_ROWS": "2000"}
        | {"MIN_UPDATE_TIME": "0"}
        | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(state: Path, **environment: str) -> Iterator[Server]:
    server = Server(state, **environment)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which each call returns the next batch; tests restart the group that they use."""
    with serving(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a window of 300 s for each batch, as in Compose."""
    with serving(tmp_path_factory.mktemp("windowed"), MIN_UPDATE_TIME="300") as server:
        yield server


def test_the_root_names_the_project(embedded: Server) -> None:
    answer = embedded.client.get("/")
    assert answer.status_code == 200
    assert answer.json() == {"Proyecto 2": "Extracción de datos, entrenamiento de modelos."}
    assert "Extracción".encode() in answer.content


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_gets_ten_batches_and_then_400(embedded: Server, group: int) -> None:
    embedded.restart(group)
    for number in range(1, 11):
        answer = embedded.data(group)
        assert answer.status_code == 200
        body = answer.json()
        assert list(body) == ["group_number", "batch_number", "data"]
        assert (body["group_number"], body["batch_number"]) == (group, number)
    for _ in range(2):
        answer = embedded.data(group)
        assert (answer.status_code, answer.json()) == (400, EXHAUSTED)
        assert EXHAUSTED["detail"].encode() in answer.content
    timestamp, batch = embedded.timestamps()[str(group)]
    assert timestamp > 0
    assert batch == 10


def test_rows_are_thirteen_strings_without_a_header(embedded: Server) -> None:
    embedded.restart(1)
    rows = embedded.data(1).json()["data"]
    assert len(rows) == 20  # a tenth of a tenth of 2,000
    for row in rows:
        assert len(row) == 13
        assert all(re.fullmatch(r"-?\d+", value) for value in row[:10])
        assert row[10] in {"Rawah", "Neota", "Commanche", "Cache"}
        assert re.fullmatch(r"C\d{4}", row[11])
        assert re.fullmatch("[1-7]", row[12])


def test_an_unknown_parameter_is_ignored(embedded: Server) -> None:
    embedded.restart(1)
    assert embedded.data(1, day="Tuesday").json()["batch_number"] == 1


@pytest.mark.parametrize("path", ["/data", "/restart_data_generation"])
@pytest.mark.parametrize("group", ["0", "11", "-1", "99999999999999999999"])
def test_an_unknown_group_gets_400(embedded: Server, path: str, group: str) -> None:
    answer = embedded.client.get(path, params={"group_number": group})
    assert (answer.status_code, answer.json()) == (400, NO_SUCH_GROUP)
    assert NO_SUCH_GROUP["detail"].encode() in answer.content


@pytest.mark.parametrize("path", ["/data", "/restart_data_generation"])
@pytest.mark.parametrize("query", ["", "?group_number=", "?group_number=six", "?group_number=6.5"])
def test_a_group_that_is_no_integer_gets_422(embedded: Server, path: str, query: str) -> None:
    assert embedded.client.get(path + query).status_code == 422


def test_restart_begins_again_with_a_new_epoch(embedded: Server) -> None:
    embedded.restart(2)
    epochs = [embedded.data(2).headers["X-Epoch"] for _ in range(11)]
    assert len(set(epochs)) == 1
    others = embedded.data(3).headers["X-Epoch"]

    answer = embedded.restart(2)
    assert (answer.status_code, answer.json()) == (200, ["ok"])
    assert answer.headers["X-Epoch"] != epochs[0]
    assert embedded.timestamps()["2"] == [0, -1]
    following = embedded.data(2)
    assert following.json()["batch_number"] == 1
    assert following.headers["X-Epoch"] == answer.headers["X-Epoch"]
    assert embedded.data(3).headers["X-Epoch"] == others


def test_fifty_clients_share_ten_batches(embedded: Server) -> None:
    embedded.restart(4)
    together = Barrier(50)

    def call(_: int) -> httpx.Response:
        together.wait()
        return httpx.get(f"{embedded.client.base_url}/data?group_number=4", timeout=60)

    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(call, range(50)))
    batches = [answer.json()["batch_number"] for answer in answers if answer.status_code == 200]
    assert sorted(batches) == list(range(1, 11))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert [(answer.status_code, answer.json()) for answer in refused] == [(400, EXHAUSTED)] * 40
    assert embedded.timestamps()["4"][1] == 10
    assert set(embedded.timestamps()) == {str(group) for group in GROUPS}


def test_calls_within_the_window_get_new_samples_of_the_same_batch(windowed: Server) -> None:
    windowed.restart(5)
    answers = [windowed.data(5).json() for _ in range(3)]
    assert [answer["batch_number"] for answer in answers] == [1, 1, 1]
    samples = {json.dumps(sorted(answer["data"])) for answer in answers}
    assert len(samples) == 3


def test_health_names_the_source_of_the_rows(windowed: Server) -> None:
    answer = windowed.client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "source": "generated",
        "rows": 2000,
        "note": "DATA_API_FETCH=never",
        "classes": "uci",
        "slice_by": "batch",
        "batch_fraction": 0.1,
        "min_update_time": 300.0,
        "seed": 0,
        "drift": None,
    }


def test_drift_starts_at_the_configured_batch_and_health_names_it(tmp_path: Path) -> None:
    with ExitStack() as servers:
        good = servers.enter_context(serving(tmp_path / "good"))
        bad = servers.enter_context(serving(tmp_path / "bad", DATA_API_DRIFT="batch=3,kind=concept,size=0.4"))
        assert bad.client.get("/health").json()["drift"] == {"batch": 3, "kind": "concept", "size": 0.4}
        pairs = [(good.data(6).json()["data"], bad.data(6).json()["data"]) for _ in range(4)]
    assert [before == after for before, after in pairs] == [True, True, False, False]


@pytest.mark.soak
def test_a_kill_loses_neither_batch_nor_epoch(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for _ in range(3):
        before = server.data(10)
    state = server.timestamps()
    server.stop(signal.SIGKILL)
    assert json.loads((tmp_path / "timestamps.json").read_text()) == state

    # A file that was half written at the kill is ignored.
    (tmp_path / "timestamps.new").write_text('{"1": [17')
    with serving(tmp_path) as again:
        after = again.data(10)
        assert after.json()["batch_number"] == 4
        assert after.headers["X-Epoch"] == before.headers["X-Epoch"]


NAMINGS: dict[str, tuple[str, Callable[[int], str]]] = {
    "group": ("course", "{:04d}".format),  # 7745
    "batch": ("uci", "Soil_Type{}".format),  # Soil_Type29
}


@pytest.mark.soak
@pytest.mark.parametrize("slice_by", ["batch", "group"])
def test_slices_class_codes_and_soil_names_follow_the_settings(tmp_path: Path, slice_by: str) -> None:
    """The CSV has 100 rows; the elevation encodes a row's position, and Cover_Type cycles through its classes."""
    served, name_soil = NAMINGS[slice_by]
    soil = {"group": 7745, "batch": 29}[slice_by]
    lines = (f"{2000 + n},1,2,3,-4,5,6,7,8,9,RAWAH,{name_soil(soil)},{n % 7 + (served == 'uci')}" for n in range(100))
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    environment = {
        "DATA_API_CSV": str(path),
        "DATA_API_CSV_CLASSES": served,
        "DATA_API_CLASSES": {"course": "uci", "uci": "course"}[served],
        "SLICE_BY": slice_by,
        "BATCH_FRACTION": "1.0",
    }
    with serving(tmp_path / "state", **environment) as server:
        assert server.client.get("/health").json()["source"] == "csv"
        for batch in range(1, 11):
            rows = server.data(10).json()["data"]
            first = {"batch": batch - 1, "group": 9}[slice_by] * 10
            assert [int(row[0]) - 2000 for row in rows] == list(range(first, first + 10))
            classes = [n % 7 + (served == "course") for n in range(first, first + 10)]
            assert [int(row[12]) for row in rows] == classes
            assert {tuple(row[10:12]) for row in rows} == {("Rawah", "C7745")}


@pytest.mark.soak
def test_equal_seeds_give_equal_samples(tmp_path: Path) -> None:
    samples = []
    with ExitStack() as servers:
        for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
            server = servers.enter_context(serving(tmp_path / name, DATA_API_SEED=seed))
            samples.append(server.data(6).json()["data"])
    assert samples[0] == samples[1]
    assert samples[0] != samples[2]


@pytest.mark.parametrize(
    ("variable", "value"), [("SLICE_BY", "column"), ("DATA_API_CSV", "absent.csv"), ("DATA_API_STATE_DIR", "held")]
)
def test_a_failed_start_prints_one_line(tmp_path: Path, variable: str, value: str) -> None:
    holder = State(tmp_path / "held", 0)
    if variable == "DATA_API_STATE_DIR":
        value = str(tmp_path / value)
    process = start(tmp_path / "state", **{variable: value})
    _, output = process.communicate()
    holder.close()
    assert process.returncode != 0
    assert variable in output
    assert output.count("\n") == 1


def number(turn: Position) -> int:
    return turn.batch


def test_a_failed_sample_does_not_change_the_state(tmp_path: Path) -> None:
    def fail(turn: Position) -> int:
        raise RuntimeError(turn)

    state = State(tmp_path, 0)
    before = (tmp_path / "timestamps.json").read_bytes()
    with pytest.raises(RuntimeError):
        state.take(1, fail)
    assert (tmp_path / "timestamps.json").read_bytes() == before
    assert state.take(1, number) == 1


def test_the_next_batch_starts_only_after_the_window(tmp_path: Path) -> None:
    now = 1_000.0
    state = State(tmp_path, 300, clock=lambda: now)
    assert state.take(1, lambda turn: (turn.batch, turn.draw)) == (1, 0)
    now += 300
    assert state.take(1, lambda turn: (turn.batch, turn.draw)) == (1, 1)
    now += 0.001
    assert state.take(1, lambda turn: (turn.batch, turn.draw)) == (2, 0)
    assert state.take(2, number) == 1


def test_the_tenth_batch_is_delivered_once(tmp_path: Path) -> None:
    """Also within its window, only the call that reaches batch ten gets it, and later calls do not."""
    (tmp_path / "timestamps.json").write_text('{"1": [5.0, 9]}')
    state = State(tmp_path, 300, clock=lambda: 1_000.0)
    assert state.take(1, number) == 10
    with pytest.raises(Exhausted):
        state.take(1, number)


@pytest.mark.parametrize("lost", ["timestamps.json", "generations.json"])
def test_deleting_the_state_file_changes_the_epoch(tmp_path: Path, lost: str) -> None:
    state = State(tmp_path, 0)
    before = state.take(1, lambda turn: turn.epoch)
    state.close()
    (tmp_path / lost).unlink()
    after = State(tmp_path, 0).take(1, lambda turn: turn)
    assert after.epoch != before
    assert after.batch == {"timestamps.json": 1, "generations.json": 2}[lost]


@pytest.mark.parametrize("damage", ["", "[]", '{"11": [0, -1]}', '{"1": [0, 11]}', '{"1": "ten"}'])
def test_a_damaged_state_file_stops_the_start(tmp_path: Path, damage: str) -> None:
    (tmp_path / "timestamps.json").write_text(damage)
    with pytest.raises(StartError, match=r"DATA_API_STATE_DIR: .*timestamps\.json is damaged"):
        State(tmp_path, 0)
