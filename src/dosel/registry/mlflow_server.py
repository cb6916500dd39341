"""The calls to an MLflow server over HTTP, by MLflow's REST API (https://mlflow.org/docs/latest/rest-api.html).

A server's answers are untrusted input. An answer of an unknown structure is an error, and a file's name cannot
leave the folder that it is copied to.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from dosel.registry.artifact_roots import ArtifactRoot
from dosel.registry.mlflow_calls import (
    MISSING,
    CheckFiles,
    MlflowCalls,
    Refused,
    Run,
    Version,
    finished_since,
    is_unknown_alias,
    of_runs,
)
from dosel.registry.mlflow_http import ARTIFACTS, PER_PAGE, MlflowHttp, WireRun, part_of
from dosel.settings import ARTIFACT_BUCKET

MAX_FILES = 1_000
"""Most files of a version."""


class MlflowServer:
    """MLflow's server at `uri`; see `MlflowCalls`. Threads may share it.

    Args:
        transport: carries the requests; tests replace it.
    """

    def __init__(self, uri: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._uri = uri
        self._http = MlflowHttp(uri, transport)

    def run(self, run_id: str) -> Run:
        return self._run(run_id).read()

    def runs(self, run_ids: Sequence[str]) -> list[Run]:
        pages = self._http.pages("POST", "experiments/search", {"view_type": "ALL"})
        experiments = [experiment.experiment_id for page in pages for experiment in page.experiments]
        asked = {"experiment_ids": experiments, "filter": of_runs(run_ids), "run_view_type": "ALL"}
        return [run.read() for page in self._http.pages("POST", "runs/search", asked) for run in page.runs]

    def finished_runs(self, experiment: str, since: datetime, most: int) -> list[Run]:
        found = self._http.call("GET", "experiments/get-by-name", {"experiment_name": experiment}).experiment
        asked = {"experiment_ids": [part_of(found).experiment_id], "filter": finished_since(since)}
        pages = self._http.pages("POST", "runs/search", asked, first=-(-most // PER_PAGE))
        return [run.read() for page in pages for run in page.runs][:most]

    def search_versions(self, wanted: str, most: int | None = None) -> list[Version]:
        if most is not None:
            asked = {"filter": wanted, "max_results": most}
            return self._http.call("GET", "model-versions/search", asked).model_versions
        pages = self._http.pages("GET", "model-versions/search", {"filter": wanted})
        return [version for page in pages for version in page.model_versions]

    def version(self, name: str, number: int) -> Version:
        return part_of(self._http.call("GET", "model-versions/get", _version(name, number)).model_version)

    def aliases(self, name: str) -> dict[str, int]:
        model = self._http.call("GET", "registered-models/get", {"name": name}).registered_model
        return {alias.alias: alias.version for alias in model.aliases}

    def aliased(self, name: str, alias: str) -> int | None:
        try:
            answer = self._http.call("GET", "registered-models/alias", {"name": name, "alias": alias})
        except Refused as error:
            if error.code == MISSING or is_unknown_alias(str(error)):
                return None
            raise
        return part_of(answer.model_version).version

    def create_model(self, name: str, description: str) -> None:
        self._http.call("POST", "registered-models/create", {"name": name, "description": description})

    def describe_model(self, name: str, text: str) -> None:
        self._http.call("PATCH", "registered-models/update", {"name": name, "description": text})

    def create_version(self, name: str, source: str, run_id: str, model_id: str) -> int:
        asked = {"name": name, "source": source, "run_id": run_id, "model_id": model_id}
        # Once: a second call would create a second version.
        return part_of(self._http.call("POST", "model-versions/create", asked, attempts=1).model_version).version

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        asked = {"name": name, "alias": alias}
        if number is not None:
            self._http.call("POST", "registered-models/alias", asked | {"version": str(number)})
        else:
            self._http.call("DELETE", "registered-models/alias", asked)

    def set_stage(self, name: str, number: int, stage: str) -> None:
        asked = {"stage": stage, "archive_existing_versions": False}
        self._http.call("POST", "model-versions/transition-stage", _version(name, number) | asked)

    def describe_version(self, name: str, number: int, text: str) -> None:
        self._http.call("PATCH", "model-versions/update", _version(name, number) | {"description": text})

    def tag_version(self, name: str, number: int, tag: str, value: str) -> None:
        self._http.call("POST", "model-versions/set-tag", _version(name, number) | {"key": tag, "value": value})

    def tag_run(self, run_id: str, tag: str, value: str) -> None:
        self._http.call("POST", "runs/set-tag", {"run_id": run_id, "key": tag, "value": value})

    def log_metric(self, run_id: str, metric: str, value: float) -> None:
        now = round(time.time() * 1000)
        # As text where JSON has no number: MLflow reads "NaN" and "Infinity".
        number = value if abs(value) < float("inf") else {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity")
        asked = {"run_id": run_id, "key": metric, "value": number, "timestamp": now, "step": 0}
        self._http.call("POST", "runs/log-metric", asked)

    def write_to_run(self, run_id: str, name: str, text: str) -> None:
        root = _proxied(self._run(run_id).info.artifact_uri)
        if root is None:
            self._library().write_to_run(run_id, name, text)
        else:
            self._http.send("PUT", f"{ARTIFACTS}/{quote(f'{root}/{name}')}", content=text.encode())

    def download(self, name: str, number: int, folder: Path, check: CheckFiles | None = None) -> Path:
        root = _proxied(self._location(name, number))
        if root is None:
            return self._library().download(name, number, folder, check)
        files = self._listed(root)
        if check is not None:
            check(files)
        for path in files:
            self._http.fetch(f"{root}/{path}", folder / path)
        return folder

    def add_file(self, name: str, number: int, file: str, content: bytes) -> None:
        root = _proxied(self._location(name, number))
        if root is None:
            self._library().add_file(name, number, file, content)
        else:
            self._http.send("PUT", f"{ARTIFACTS}/{quote(f'{root}/{file}')}", content=content)

    def _library(self) -> MlflowCalls:
        """MLflow's own client, for artifacts that do not come through the server."""
        from dosel.registry.mlflow_library import MlflowLibrary

        return MlflowLibrary(self._uri)

    def _run(self, run_id: str) -> WireRun:
        return part_of(self._http.call("GET", "runs/get", {"run_id": run_id}).run)

    def _location(self, name: str, number: int) -> str:
        return self._http.call("GET", "model-versions/get-download-uri", _version(name, number)).artifact_uri

    def _listed(self, root: str) -> dict[str, int | None]:
        """The sizes of the files below a folder of artifacts, by their paths from there."""
        folders, files, entries = [""], dict[str, int | None](), 0
        while folders:
            below = folders.pop()
            answer = self._http.read(self._http.send("GET", ARTIFACTS, params={"path": f"{root}/{below}".rstrip("/")}))
            for file in answer.files:
                if file.path in ("", ".", "..") or any(character in file.path for character in "/\\\0"):
                    raise Refused(f"its artifacts have a file with the name {file.path[:100]!r}")
                path = f"{below}/{file.path}".lstrip("/")
                if file.is_dir:
                    folders.append(path)
                else:
                    files[path] = file.file_size
                entries += 1
            if entries > MAX_FILES:
                raise Refused(f"it lists more than {MAX_FILES:,} files below {root}")
        return files


def _version(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "version": str(number)}


def _proxied(location: str) -> str | None:
    """The path of a folder of artifacts that the server hands out itself; None if it is in dosel's bucket.

    Raises:
        Refused: it is elsewhere. MLflow's own client would follow it to any host, and take its credentials along.
    """
    found = urlsplit(location)
    if found.scheme == "mlflow-artifacts" and not (found.netloc or found.query or found.fragment):
        return found.path.strip("/")
    if ArtifactRoot(f"s3://{ARTIFACT_BUCKET}").holds(location):
        return None
    raise Refused(
        f"its artifacts are at {location[:100]!r}; dosel reads those that MLflow hands out itself "
        f"(mlflow-artifacts:/…), and those in the bucket {ARTIFACT_BUCKET}"
    )
