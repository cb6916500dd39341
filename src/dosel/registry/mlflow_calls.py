"""The calls to MLflow that dosel makes, and MLflow's answers.

`connect` gives them over HTTP, without importing MLflow, which takes seconds and 100 MB. MLflow's own client makes them
where there is no server, or where a server needs more of a client than HTTP.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

MISSING = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"

RUN_NOTE = "mlflow.note.content"
"""The tag that has a run's description."""

PARENT_RUN, RUN_NAME = "mlflow.parentRunId", "mlflow.runName"
"""The tags that have the id of a run's parent, and a run's name."""

_BEYOND_HTTP = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH")
"""Variables that ask for plug-ins of MLflow's own client."""


CheckFiles = Callable[[Mapping[str, int | None]], None]
"""A check of a version's files, given the size of each in bytes by its path; None for an unknown size."""


class Refused(Exception):
    """MLflow refused a call.

    Attributes:
        code: MLflow's error code, such as `MISSING`; "" if the answer has none.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class TooLarge(Refused):
    """MLflow's answer has more than dosel reads: anybody with access to MLflow can add to a run."""


class Unreachable(Exception):
    """MLflow did not answer; the message says how."""


class Run(msgspec.Struct, frozen=True):
    """A run. `models` are the ids of the models that it logged, `experiment` is the id of its experiment."""

    id: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    models: tuple[str, ...] = ()
    experiment: str = ""


class Version(msgspec.Struct, frozen=True):
    """A version of a registered model, by MLflow's names. A search leaves the aliases out."""

    name: str
    version: int
    creation_timestamp: int = 0
    run_id: str = ""
    source: str = ""
    model_id: str = ""
    current_stage: str = "None"
    aliases: Sequence[str] = ()


class MlflowCalls(Protocol):
    """MLflow. Each call may raise `Unreachable` or `Refused`, the latter with `MISSING` for what does not exist."""

    def run(self, run_id: str) -> Run: ...

    def runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Those of these runs that exist, deleted ones too."""

    def finished_runs(self, experiment: str, since: datetime, most: int) -> list[Run]:
        """The newest finished runs of an experiment that began after `since`."""

    def search_versions(self, wanted: str, most: int | None = None) -> list[Version]:
        """The versions that a filter of MLflow's search matches."""

    def version(self, name: str, number: int) -> Version: ...

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a registered model, with their versions."""

    def aliased(self, name: str, alias: str) -> int | None:
        """The version that has an alias; None if none has it."""

    def create_model(self, name: str, description: str) -> None:
        """Register a model; refused with `EXISTS` if it is registered."""

    def describe_model(self, name: str, text: str) -> None: ...

    def create_version(self, name: str, source: str, run_id: str, model_id: str) -> int: ...

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Set an alias, or remove it if `number` is None."""

    def set_stage(self, name: str, number: int, stage: str) -> None: ...

    def describe_version(self, name: str, number: int, text: str) -> None: ...

    def tag_version(self, name: str, number: int, tag: str, value: str) -> None: ...

    def tag_run(self, run_id: str, tag: str, value: str) -> None: ...

    def log_metric(self, run_id: str, metric: str, value: float) -> None: ...

    def write_to_run(self, run_id: str, name: str, text: str) -> None:
        """Write a text as an artifact of a run."""

    def download(self, name: str, number: int, folder: Path, check: CheckFiles | None = None) -> Path:
        """Copy a version's files into a folder, and return where they are.

        Args:
            check: raises an error if the files are not those wanted; called before any file is fetched.
        """

    def add_file(self, name: str, number: int, file: str, content: bytes) -> None:
        """Add a file to a version's files, or replace it."""


def of_runs(run_ids: Iterable[str]) -> str:
    """The filter of MLflow's search that matches these runs."""
    quoted = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return f"attributes.run_id IN ({quoted})"


def finished_since(since: datetime) -> str:
    """The filter of MLflow's search that matches finished runs which began after `since`."""
    return f"attributes.start_time > {round(since.timestamp() * 1000)} AND attributes.status = 'FINISHED'"


def is_unknown_alias(message: str) -> bool:
    """Whether MLflow refused a call since nothing has the alias: it has no error code of its own for that."""
    return "alias" in message and "not found" in message


def connect(uri: str) -> MlflowCalls:
    """The calls to MLflow at `uri`: a server's address, or whatever else MLflow's own client takes."""
    if uri.startswith(("http://", "https://")) and not any(os.environ.get(name) for name in _BEYOND_HTTP):
        from dosel.registry.mlflow_server import MlflowServer

        return MlflowServer(uri)
    from dosel.registry.mlflow_library import MlflowLibrary

    return MlflowLibrary(uri)
