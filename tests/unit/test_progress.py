"""The progress report, from a real data store and MLflow store and a stand-in for Airflow."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from dosel.db.engine import connect
from dosel.embedded.airflow_runs import AirflowRuns
from dosel.embedded.progress import Progress
from dosel.model.fingerprint import declaration
from dosel.quality import check
from dosel.registry.ledger import PromotionLedger
from dosel.registry.mlflow_library import MlflowLibrary
from dosel.registry.training_progress import candidates_since
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.terminal import Bar
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore

Received = Callable[..., list[list[str]]]
INGEST, TRAIN = "covertype_ingest", "covertype_train"


class Airflow:
    """A stand-in for Airflow's API with the given failed tasks and runs."""

    def __init__(self) -> None:
        self.health = {part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "dag_processor")}
        self.failed: list[dict[str, Any]] = []
        self.dags = {INGEST: 0, TRAIN: 0}
        self.started: list[str] = []
        self.logins = 0
        self.token = "t1"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self, None)

            def do_POST(self) -> None:
                outer.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def answer(self, request: BaseHTTPRequestHandler, body: Any) -> None:
        status, answer = self.decide(request, body)
        request.send_response(status)
        request.end_headers()
        request.wfile.write(json.dumps(answer).encode())

    def decide(self, request: BaseHTTPRequestHandler, body: Any) -> tuple[int, Any]:
        url = urlsplit(request.path)
        if url.path == "/api/v2/monitor/health":
            return 200, self.health
        if url.path == "/auth/token":
            self.logins += 1
            return (201, {"access_token": self.token}) if body["password"] == "admin" else (401, {})
        if request.headers["Authorization"] != f"Bearer {self.token}":
            return 401, {}
        dag = url.path.split("/")[4]
        if dag not in self.dags:
            return 404, {"detail": "no such DAG"}
        if request.command == "POST":
            self.started.append(dag)
            return 200, {}
        if url.path.endswith("/taskInstances"):
            states = parse_qs(url.query)["state"]
            return 200, {"task_instances": [t for t in self.failed if t["dag_id"] == dag and t["state"] in states]}
        return 200, {"total_entries": self.dags[dag]}


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    made = Airflow()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def settings(tracking_uri: str, tmp_path: Path, airflow: Airflow) -> Settings:
    return Settings(home=tmp_path / "home", tracking_uri=tracking_uri, airflow_port=airflow.port)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri)


def candidate(
    client: MlflowClient, position: str, score: float, parent: str = "search", family: str = "forest", **run: Any
) -> str:
    experiment = client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    tags = {MLFLOW_PARENT_RUN_ID: parent, MLFLOW_RUN_NAME: f"try={position}", "dosel.candidate": position}
    tags["dosel.family"] = family
    run_id: str = client.create_run(experiment.experiment_id, tags=tags if parent else {}, **run).info.run_id
    client.log_metric(run_id, "mean_test_score", score)
    return run_id


def failure(state: str = "up_for_retry", attempt: int = 1) -> dict[str, Any]:
    names = {"dag_id": INGEST, "dag_run_id": "run-1", "task_id": "pull"}
    return names | {"try_number": attempt, "max_tries": 2, "state": state}


def write_log(settings: Settings, *entries: Any, attempt: int = 1) -> Path:
    folder = settings.home / "airflow" / "logs" / f"dag_id={INGEST}" / "run_id=run-1" / "task_id=pull"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"attempt={attempt}.log"
    log.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
    return log


def store(settings: Settings, number: int, received: list[list[str]]) -> None:
    checked = check(COVERTYPE, received, "uci")
    batch = Batch("http://data.test", "group 6", "e1", number, received, "uci")
    assert BatchStore(connect(settings.warehouse_url), COVERTYPE).store(batch, checked.accepted, checked.refused)


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_candidates_are_listed_in_search_order(client: MlflowClient, tracking_uri: str) -> None:
    for position in ("10/10", "2/10", "9/10", "1/10"):
        client.set_terminated(candidate(client, position, 0.5))
    seen = candidates_since(MlflowLibrary(tracking_uri), COVERTYPE.experiment, LONG_AGO)
    assert [c.position for c in seen] == ["1/10", "2/10", "9/10", "10/10"]
    assert (seen[0].params, seen[0].score, seen[0].search) == ("try=1/10", 0.5, "search")


def test_only_candidates_scored_since_the_given_time_are_listed(client: MlflowClient, tracking_uri: str) -> None:
    now = datetime.now(UTC)
    before = round((now - timedelta(hours=1)).timestamp() * 1000)
    client.set_terminated(candidate(client, "1/3", 0.5, start_time=before))
    candidate(client, "2/3", 0.5)
    client.set_terminated(candidate(client, "", 0.5, parent=""))
    client.set_terminated(candidate(client, "3/3", 0.5))
    seen = candidates_since(MlflowLibrary(tracking_uri), COVERTYPE.experiment, now - timedelta(minutes=1))
    assert [c.position for c in seen] == ["3/3"]


def test_without_an_experiment_there_are_no_candidates(tracking_uri: str) -> None:
    assert candidates_since(MlflowLibrary(tracking_uri), "not there", LONG_AGO) == []


def test_each_new_batch_is_reported_once(settings: Settings, received: Received) -> None:
    store(settings, 1, received(3, seed=1))
    progress = Progress(COVERTYPE, settings)
    assert progress.poll() == []
    rows = received(1200, seed=2)
    store(settings, 2, [*rows, rows[0], ["short"]])
    (news,) = progress.poll()
    assert news == "covertype   batch  2   1,200 of 1,202 rows kept, 1 refused, 1 duplicates"
    assert progress.stage == "pulling batches"
    assert progress.poll() == []
    assert set(progress.phases) == {"batches"}


def test_candidates_are_reported_with_the_best_score_so_far(settings: Settings, client: MlflowClient) -> None:
    progress = Progress(COVERTYPE, settings)
    for position, score in (("1/3", 0.7), ("2/3", 0.6)):
        client.set_terminated(candidate(client, position, score))
    first, second = progress.poll()
    assert first.endswith("0.7000   best 0.7000")
    assert second.endswith("0.6000   best 0.7000")
    client.set_terminated(candidate(client, "3/3", 0.8))
    client.set_terminated(candidate(client, "1/3", 0.1, parent="another search"))
    assert [news.split()[-1] for news in progress.poll()] == ["0.1000", "0.8000"]


def test_consecutive_batches_share_one_bar(settings: Settings, received: Received) -> None:
    progress = Progress(COVERTYPE, settings)
    assert progress.bars() == []
    store(settings, 1, received(3, seed=1))
    progress.poll()
    (bar,) = progress.bars()
    assert (bar.title, bar.text, bar.of) == ("covertype batches", "1 batch  3 rows  0 refused  0 duplicates", None)
    store(settings, 2, [*received(1200, seed=2), ["short"]])
    progress.poll()
    (bar,) = progress.bars()
    assert re.fullmatch(r"2 batches  1,204 rows  [\d,]+ rows/s  1 refused  0 duplicates", bar.text)


def test_batches_lose_their_bar_after_a_pause(
    settings: Settings, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress(COVERTYPE, settings)
    store(settings, 1, received(3))
    progress.poll()
    monkeypatch.setattr("dosel.embedded.progress.LULL_SECONDS", 0)
    assert progress.bars() == []


def test_each_searched_family_has_a_bar_until_its_search_ends(settings: Settings, client: MlflowClient) -> None:
    progress = Progress(COVERTYPE, settings)
    for position, score, parent, family in (
        ("1/3", 0.7, "a", "forest"),
        ("2/3", 0.6, "a", "forest"),
        ("1/2", 0.8, "b", "boosting"),
    ):
        client.set_terminated(candidate(client, position, score, parent, family))
    progress.poll()
    assert progress.bars() == [
        Bar("covertype forest", "2/3  best 0.7000", 2, 3),
        Bar("covertype boosting", "1/2  best 0.8000", 1, 2),
    ]
    client.set_terminated(candidate(client, "2/2", 0.1, "b", "boosting"))
    # A killed search is repeated in a new run.
    client.set_terminated(candidate(client, "1/3", 0.5, "c", "forest"))
    progress.poll()
    assert progress.bars() == [Bar("covertype forest", "1/3  best 0.5000", 1, 3)]


def test_a_promotion_is_reported_with_its_reason(settings: Settings, client: MlflowClient) -> None:
    progress = Progress(COVERTYPE, settings)
    assert progress.poll() == []
    assert progress.production is None
    name = COVERTYPE.model_name
    client.create_registered_model(name)
    client.create_model_version(name, "file:///nowhere", candidate(client, "1/1", 0.5))
    client.set_registered_model_alias(name, "production", "1")
    PromotionLedger(connect(settings.warehouse_url)).append(name, 1, "me", "accuracy 0.9")
    (news,) = progress.poll()
    assert news == f"covertype   Production   {name} version 1: accuracy 0.9"
    assert progress.production == 1
    assert progress.poll() == []


def test_a_failed_task_is_reported_once_per_attempt(settings: Settings, airflow: Airflow) -> None:
    progress = Progress(COVERTYPE, settings)
    write_log(settings, {"error_detail": [{"exc_type": "SourceUnavailable", "exc_value": "answered 500"}]})
    airflow.failed = [failure()]
    (news,) = progress.poll()
    assert news == ("covertype_ingest: task pull failed (attempt 1 of 3): SourceUnavailable: answered 500; retrying")
    assert progress.poll() == []
    airflow.failed = [failure(attempt=2)]
    assert len(progress.poll()) == 1
    assert progress.stage == "retrying"


def test_a_task_without_attempts_left_has_failed(settings: Settings, airflow: Airflow) -> None:
    progress = Progress(COVERTYPE, settings)
    log = write_log(settings, {"level": "error", "event": "boom"}, attempt=3)
    airflow.failed = [failure("failed", attempt=3)]
    reason = f"covertype_ingest: task pull failed (attempt 3 of 3): boom\nIts log: {log}"
    assert progress.poll() == [reason]
    assert (progress.failed, progress.stage) == (reason, "failed")
    assert progress.poll() == []


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([{"error_detail": [{"exc_type": "E", "exc_value": "why"}]}, {"level": "info", "event": "bye"}], "E: why"),
        ([{"level": "error", "event": "first"}, {"level": "critical", "event": "last"}], "last"),
        ([{"level": "error", "event": "told"}, "Killed", "{cut"], "told"),
        ([{"level": "info", "event": "working"}], "the task ended without an error message; it was probably killed"),
        ([], "the task ended without an error message; it was probably killed"),
        (None, "no log was written"),
    ],
    ids=["exception", "last error", "lines that are no JSON", "killed", "empty", "missing"],
)
def test_the_reason_of_a_failure_is_read_from_the_task_log(
    entries: list[Any] | None, reason: str, settings: Settings, airflow: Airflow
) -> None:
    if entries is not None:
        write_log(settings, *entries)
    airflow.failed = [failure()]
    (trouble,) = AirflowRuns(settings).failures(INGEST, LONG_AGO)
    assert trouble.reason == reason
    assert (trouble.attempt, trouble.attempts, trouble.final) == (1, 3, False)


def test_a_dag_that_airflow_does_not_know_has_no_failures(settings: Settings, airflow: Airflow) -> None:
    assert AirflowRuns(settings).failures("not_parsed_yet", LONG_AGO) == []


@pytest.mark.parametrize(
    ("part", "status", "unhealthy"),
    [
        ("triggerer", "unhealthy", []),
        ("scheduler", "unhealthy", ["scheduler"]),
        ("dag_processor", None, ["dag_processor"]),
        ("metadatabase", "healthy", []),
    ],
)
def test_airflow_is_healthy_if_its_required_components_are(
    part: str, status: str | None, unhealthy: list[str], settings: Settings, airflow: Airflow
) -> None:
    airflow.health[part] = {"status": status}  # type: ignore[dict-item]
    assert AirflowRuns(settings).unhealthy() == unhealthy


def test_an_expired_token_is_replaced(settings: Settings, airflow: Airflow) -> None:
    import httpx

    runs = AirflowRuns(settings)
    assert runs.failures(INGEST, LONG_AGO) == []
    assert runs.failures(TRAIN, LONG_AGO) == []
    assert airflow.logins == 1
    airflow.token = "t2"
    with pytest.raises(httpx.HTTPStatusError):
        runs.failures(INGEST, LONG_AGO)
    assert runs.failures(INGEST, LONG_AGO) == []
    assert airflow.logins == 2


@pytest.mark.parametrize(
    ("under_way", "started"), [({INGEST: 0}, [INGEST]), ({INGEST: 1}, []), ({}, [])], ids=["idle", "busy", "unknown"]
)
def test_start_ingest_triggers_the_dag_unless_it_runs(
    under_way: dict[str, int], started: list[str], settings: Settings, airflow: Airflow
) -> None:
    airflow.dags = under_way
    Progress(COVERTYPE, settings).start_ingest()
    assert airflow.started == started


OTHER = replace(COVERTYPE, features=(replace(COVERTYPE.features[0], revision=2), *COVERTYPE.features[1:]))


@pytest.mark.parametrize(
    ("batches", "trained_for", "started"),
    [({1}, COVERTYPE, []), (set(), COVERTYPE, [INGEST]), ({1}, OTHER, [INGEST])],
    ids=["nothing to do", "no rows, as after a reset", "another declaration"],
)
def test_start_ingest_triggers_the_dag_if_rows_or_a_usable_version_are_missing(
    batches: set[int], trained_for: UseCase, started: list[str], settings: Settings, airflow: Airflow
) -> None:
    """The version in Production does not answer after another declaration, and the next one needs an ingest."""
    airflow.dags = {INGEST: 0}
    manifest = SimpleNamespace(model="m", version=1, facts=SimpleNamespace(declaration=declaration(trained_for)))
    entry = SimpleNamespace(to_version=1, evidence=SimpleNamespace(to_run="r"))
    registry: Any = SimpleNamespace(
        last_promotion=lambda _: entry,
        production_number=lambda _: 1,
        ledger=SimpleNamespace(manifest=lambda *_: manifest),
    )
    progress = Progress(COVERTYPE, settings)
    progress._batches, progress._registry = batches, registry
    progress.start_ingest()
    assert airflow.started == started


def test_unreachable_services_are_not_reported_as_progress(
    tmp_path: Path, settings: Settings, airflow: Airflow
) -> None:
    progress = Progress(COVERTYPE, settings)
    airflow.server.shutdown()
    airflow.server.server_close()
    assert progress.poll() == []
    progress.start_ingest()
