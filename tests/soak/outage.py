"""Stops MLflow, MinIO and MariaDB under a running API, and starts them again.

    make outage                  a few minutes (needs mariadbd and minio)

The API keeps answering. Restarted meanwhile, it answers from its cache and marks answers as stale.
"""

import json
import os
import sys
import time
from contextlib import ExitStack

import httpx
import psutil
from sqlalchemy import create_engine

from benchmarks.installation import Installation, Servers, installation, local_server, say, wait_until
from benchmarks.serving import uvicorn
from dosel.embedded.local_databases import MariaDB
from dosel.embedded.local_servers import LocalServer, Minio
from dosel.embedded.services import make_bucket
from dosel.settings import ARTIFACT_BUCKET, Settings
from dosel.usecases.covertype import COVERTYPE
from tests.soak.serving import Answers, sending

SECONDS = 30
"""Seconds of requests to the API while all servers behind it are down."""


def main() -> None:
    with local_server(MariaDB) as database, local_server(Minio) as files:
        os.environ |= files.settings
        make_bucket(Settings())
        with create_engine(database.url(dialect="mysql+pymysql")).begin() as connection:
            connection.exec_driver_sql("CREATE DATABASE mlflow")
        behind = Servers(
            database.url(),
            database.url("mlflow", "mysql+pymysql"),
            f"s3://{ARTIFACT_BUCKET}",
            files.settings | {"MLFLOW_S3_ENDPOINT_URL": files.url},
        )
        with installation((20, 8), behind=behind) as here:
            result = outage(here, [database, files])
    say(f"RESULT {json.dumps(result)}")
    sys.exit(bool(result["failed"] or not result["same_answer"]))


def outage(here: Installation, stores: list[LocalServer]) -> dict[str, float | bool]:
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, _, _):
        wait_until(lambda: not stale(url), 30, lambda: "the first look at the registry")
        time.sleep(3)
        whole = ask(url)
        with sending(Answers(), url) as found:
            end_everything(here, stores)
            gone = time.monotonic()
            wait_until(lambda: stale(url), 60, lambda: "the API to notice")
            noticed = time.monotonic() - gone
            say(f"everything is gone; /readyz says stale after {noticed:.1f} s")
            time.sleep(SECONDS)
        say(f"{len(found.answers)} answers with nothing behind the API, {len(found.failed)} failed")
        same = ask(url).json() == whole.json()
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, _, seconds):
        again = ask(url)
        say(f"restarted: ready after {seconds:.1f} s, stale: {again.headers.get('x-model-stale')}")
        marked = again.headers.get("x-model-stale") == "true" and stale(url) and "dosel_model_stale{" in metrics(url)
        same = same and again.json() == whole.json()
        with sending(Answers(), url) as later, ExitStack() as stack:
            for store in stores:
                store.start()
            stack.enter_context(here.mlflow.running())
            back = time.monotonic()
            wait_until(lambda: not stale(url), 90, lambda: "the API to find that everything is back")
            recovered = time.monotonic() - back
            # Requests from the outage reach the log after it.
            wait_until(lambda: figure(url, "dosel_prediction_log_waiting") < 100, 90, lambda: "the prediction log")
            say(f"everything is back; no longer stale after {recovered:.1f} s")
            dropped = figure(url, "dosel_prediction_log_dropped_total")
    return {
        "requests": len(found.answers) + len(later.answers) + len(found.failed) + len(later.failed),
        "failed": len(found.failed) + len(later.failed),
        "same_answer": same,
        "stale_after_s": round(noticed, 1),
        "restart_s": round(seconds, 1),
        "restarted_is_marked_stale": marked,
        "in_step_again_after_s": round(recovered, 1),
        "log_dropped": dropped,
    }


def end_everything(here: Installation, stores: list[LocalServer]) -> None:
    """Kill all servers without warning."""
    port = int(here.mlflow.url.rpartition(":")[2])
    for process in psutil.process_iter(["cmdline"]):
        if "mlflow" in " ".join(process.info["cmdline"] or []) and str(port) in (process.info["cmdline"] or []):
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
    for store in stores:
        store.stop()


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/predict", json=COVERTYPE.example, timeout=10).raise_for_status()


def stale(url: str) -> bool:
    return bool(httpx.get(f"{url}/readyz", timeout=10).raise_for_status().json()["stale"])


def metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text


def figure(url: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in metrics(url).splitlines() if line.startswith(name))


if __name__ == "__main__":
    main()
