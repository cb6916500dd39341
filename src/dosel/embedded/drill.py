"""Runs the platform on data that go bad, and follows what happens, from the first promotion to the recovery."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import loads
from pathlib import Path

from httpx import HTTPError
from rich.console import Console
from rich.markup import escape

from dosel.client import Client
from dosel.embedded.airflow_runs import AirflowRuns
from dosel.embedded.drill_record import Record
from dosel.embedded.preflight import free_ports
from dosel.embedded.services import HOST, services
from dosel.embedded.up import Platform
from dosel.errors import ServiceError, StartupError
from dosel.monitor.targets import signature
from dosel.settings import Settings
from dosel.usecases import ALL, DataApiRows

USE_CASE = next(use_case.name for use_case in ALL if isinstance(use_case.rows, DataApiRows))
"""Its rows come from the data API, which can simulate drift."""

DRIFT = "batch=3,kind=concept,size=1"
"""From the third batch on, the two most frequent classes have each other's labels: what the first model has learned is
wrong for most rows."""

TO_LEARN_FROM = 8
"""Batches after which the drill waits for the retraining; most of them have the new labels."""

PLATFORM = {
    "DOSEL_USE_CASES": USE_CASE,
    # The drill starts each ingest itself, and each brings one batch, so that no batch comes before its turn.
    "DOSEL_INGEST_EVERY": "3600",
    "DATA_API_FETCH": "never",
    "DATA_API_ROWS": "8000",
    "DATA_API_DRIFT": DRIFT,
    "BATCH_FRACTION": "1",
    "MIN_UPDATE_TIME": "6",
}

OTHERS = ("DOSEL_", "AIRFLOW", "MLFLOW_", "DATA_API_", "BATCH_", "SLICE_", "AWS_")
"""Settings of the caller's that the drill does not use."""

SECRET = "drill"

LIMIT_SECONDS = 900.0
"""It takes less than five minutes on two cores; a slower machine has this long."""

POLL_SECONDS = 1.0


def run(folder: Path, console: Console, shadow: bool) -> Path:
    """Run the drill in this folder, stop the platform, and return the page that says what happened.

    Replaces the environment of this process.

    Args:
        shadow: whether a new version proves itself on live rows before it enters Production.

    Raises:
        StartupError: a service did not start, or a step did not happen in time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = Record(shadow)
    with _webhook(record) as url:
        _set_environment(folder, url, shadow)
        settings = Settings.load()
        platform = Platform(settings, dict(os.environ), console)
        try:
            platform.up(detach=True)
            _follow(settings, record, console, shadow)
        finally:
            page = record.write(folder / "drill.html")
            platform.down()
    console.print(f"\nWhat happened: {page}", highlight=False)
    if missing := record.missing():
        raise StartupError(f"within {LIMIT_SECONDS:.0f} s this did not happen: {', '.join(missing)}")
    return page


def _set_environment(folder: Path, webhook_url: str, shadow: bool) -> None:
    for name in [name for name in os.environ if name.startswith(OTHERS)]:
        del os.environ[name]
    os.environ.update(PLATFORM)
    ports = [service.port_setting for service in services(Settings.load()) if service.port_setting]
    os.environ.update(zip(ports, map(str, free_ports(len(ports))), strict=True))
    os.environ |= {"DOSEL_HOME": str(folder), "DOSEL_NOTIFY_WEBHOOK": webhook_url, "DOSEL_NOTIFY_SECRET": SECRET}
    os.environ["DOSEL_SHADOW"] = str(shadow)


def _follow(settings: Settings, record: Record, console: Console, shadow: bool) -> None:
    """Pull batch after batch, and print what follows, until all steps have happened or the time is over."""
    airflow = AirflowRuns(settings)
    with Client(settings.api_url, timeout=10, attempts=1) as client:
        while record.missing() and record.seconds < LIMIT_SECONDS:
            with suppress(ServiceError, HTTPError):
                for line in record.add(client.events(USE_CASE), client.health(USE_CASE)):
                    console.print(f"[dim]{record.seconds:>4.0f} s[/]  {escape(line)}", highlight=False)
                # A training has enough rows. A shadow needs more labels, and so does the proof that the harm is gone.
                trained = "shadow" if shadow else "retrained"
                learning = "harmed" in record.steps and trained not in record.steps
                if not learning or len(client.batches(USE_CASE)["batches"]) < TO_LEARN_FROM:
                    airflow.start_run(f"{USE_CASE}_ingest")
            time.sleep(POLL_SECONDS)


@contextmanager
def _webhook(record: Record) -> Iterator[str]:
    """A receiver of messages that refuses those without a valid signature; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            at = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
            expected = signature(SECRET, self.headers["webhook-id"], at, content)["webhook-signature"]
            valid = compare_digest(self.headers["webhook-signature"], expected)
            if valid:
                record.messages.setdefault(loads(content)["incident"], record.seconds)
            self.send_response(204 if valid else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The drill prints what arrives itself."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}/"
        server.shutdown()
