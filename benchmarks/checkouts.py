"""APIs of this or another checkout, each with an installation of its own: an older dosel cannot read newer ledgers."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import psutil

_SIDE = """
import json
import sys
from benchmarks.installation import installation
from benchmarks.serving import uvicorn
from dosel.pipeline import Pipeline
from dosel.usecases import ALL

with installation((80, 12)) as here:
    for use_case in ALL if sys.argv[1] == "all" else ():
        if use_case.name != "covertype":
            pipeline = Pipeline(use_case, here.settings)
            pipeline.ingest(pipeline.source())
            version = pipeline.registry.version(use_case.model_name, pipeline.register(pipeline.train()))
            pipeline.registry.promote(version, "benchmark", "a benchmark")
    print("READY", flush=True)
    for line in sys.stdin:
        with uvicorn(here, "app.main:create_app", "/readyz", **json.loads(line)) as (url, running, seconds):
            print("SERVES", url, running.pid, seconds, flush=True)
            sys.stdin.readline()
        print("STOPPED", flush=True)
"""
"""Run by a checkout's own Python. It starts the API for each line, an environment, and stops it after the next line."""

Started = tuple[str, psutil.Process, float]
"""An API's address, its process, and the seconds until it was ready."""

Start = Callable[..., AbstractContextManager[Started]]
"""Starts an API with the given variables in its environment."""


class _Side:
    """A process of a checkout, which starts its API on demand."""

    def __init__(self, folder: Path, use_cases: str, errors: IO[str]) -> None:
        self._folder, self._errors = folder, errors
        self.process = subprocess.Popen(
            [folder / ".venv" / "bin" / "python", "-c", _SIDE, use_cases],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{folder}:{folder / 'src'}", "DOSEL_TRIALS": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    @contextmanager
    def start(self, **environment: str) -> Iterator[Started]:
        self._tell(json.dumps(environment))
        url, pid, seconds = self.wait_for("SERVES")
        yield url, psutil.Process(int(pid)), float(seconds)
        self._tell("")
        self.wait_for("STOPPED")

    def wait_for(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        words = next((line.split() for line in self.process.stdout if line.startswith(word)), None)
        if words is None:
            self._errors.seek(0)
            raise RuntimeError(f"the API of {self._folder} did not start: {self._errors.read()[-3000:]}")
        return words[1:]

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@contextmanager
def checkout(folder: Path, every_use_case: bool = False) -> Iterator[Start]:
    """An installation of a checkout, whose environment is in its `.venv`, with a forest for covertype in Production.

    Args:
        every_use_case: models of the other use cases are in Production, too.

    Raises:
        RuntimeError: the installation or its API did not start.
    """
    with TemporaryFile("w+") as errors:
        side = _Side(folder, "all" if every_use_case else "covertype", errors)
        try:
            side.wait_for("READY")
            yield side.start
        finally:
            # The process ends when its input is closed.
            side.process.communicate()
