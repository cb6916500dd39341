"""Random requests against a running API.

    make fuzz                    10,000 cases; CASES=500 for a short one

Schemathesis generates valid and invalid requests from the OpenAPI document for all use cases, with a model of each in
Production. All of its checks are on: valid requests have to be answered and invalid ones refused, every response has to
be documented, and calls that require a key have to refuse requests without it. Three checks find nothing to test:
`use_after_free` and `ensure_resource_availability`, since no call creates or deletes anything, and
`object_level_authorization`, since a key is not limited to some objects. Of CSVs, only the examples have to be accepted
(`tests.soak.fuzz_hooks`).
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import mlflow
from fastapi import FastAPI

from app.main import create_app as main_app
from app.routes import feedback
from benchmarks.installation import ROOT, Installation, installation, say
from benchmarks.serving import uvicorn
from dosel.usecases import ALL
from tests.contract.conftest import fitted

CASES = 10_000
READERS_CASES = 500
"""The number of cases at which the JSON and CSV readers get as many examples as in an ordinary test run."""

KEY = "k" * 20
CONFIG = Path(__file__).with_name("schemathesis.toml")


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    scale = {"FUZZ_SCALE": str(max(1, cases // READERS_CASES))}
    readers = [sys.executable, "-m", "pytest", "-q", "tests/unit/test_row_readers.py", "--timeout", "3600"]
    wrong = subprocess.run(readers, env=os.environ | scale, check=False).returncode
    with installation((5, 5)) as here:
        put_into_production(here)
        wrong = wrong or fuzz(here, cases)
    sys.exit(wrong)


def create_app() -> FastAPI:
    """The API without pauses between lookups of answers, since almost all generated feedback names none."""
    feedback.PAUSE_SECONDS = 0
    return main_app()


def put_into_production(here: Installation) -> None:
    """Put a small model of each use case that has none into Production."""
    registry = here.pipeline.registry
    mlflow.set_tracking_uri(here.settings.tracking_uri)
    for use_case in ALL:
        if registry.last_promotion(use_case.model_name) is None:
            mlflow.set_experiment(use_case.experiment)
            registry.promote(registry.register(use_case, fitted(registry.ledger, use_case)), "make fuzz", "to answer")


def fuzz(here: Installation, cases: int) -> int:
    """Run the cases; return an exit code."""
    with uvicorn(here, "tests.soak.fuzz:create_app", "/readyz", DOSEL_PROMOTE_KEYS=f"fuzz:{KEY}") as (url, _, _):
        calls = sum(len(methods) for methods in httpx.get(f"{url}/openapi.json", timeout=60).json()["paths"].values())
        schemathesis = Path(sys.executable).with_name("schemathesis")
        command = [
            *(
                str(schemathesis),
                "--config-file",
                str(CONFIG),
                "run",
                f"{url}/openapi.json",
                "--checks",
                "all",
                "--continue-on-failure",
            ),
            *("--max-examples", str(max(1, cases // calls)), "--phases", "examples,coverage,fuzzing"),
            *(
                "--mode",
                "all",
                "--seed",
                "1",
                "--request-timeout",
                "30",
                "--header",
                f"X-API-Key: {KEY}",
                "--generation-database",
                ":memory:",
            ),
        ]
        say(" ".join(command[1:]))
        hooks = {"SCHEMATHESIS_HOOKS": "tests.soak.fuzz_hooks"}
        return subprocess.run(command, check=False, env=os.environ | hooks, cwd=ROOT).returncode


if __name__ == "__main__":
    main()
