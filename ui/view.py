"""What each view of the page gets: its use case, the API, and the addresses of the other services."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st

from dosel.addresses import in_airflow, run_in_mlflow
from dosel.client import Client
from dosel.settings import Settings

T = TypeVar("T")

TIMEOUT_SECONDS = 10
KEPT_SECONDS = 5
"""How long an answer of the API is kept, so that a click elsewhere on the page does not ask again."""


@dataclass(frozen=True)
class Api:
    """The prediction API, with the reader's own key: a key of the page would be every visitor's."""

    url: str
    key: str

    @property
    def client(self) -> Client:
        return _client(self.url, self.key)

    def read(self, call: Callable[..., T], *arguments: Any) -> T:
        """The answer to a call of `client` that changes nothing; from a moment ago, if it was asked then."""
        found: T = _kept(call, call.__name__, self.url, self.key, arguments)
        return found


@dataclass(frozen=True)
class View:
    """A use case, as `GET /use-cases` describes it, and where to find what belongs to it."""

    api: Api
    use_case: dict[str, Any]
    settings: Settings

    @property
    def name(self) -> str:
        return str(self.use_case["name"])

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return str(self.use_case["model_name"])

    def run_address(self, version: dict[str, Any]) -> str:
        """A version's run in MLflow."""
        return run_in_mlflow(self.settings, version["experiment_id"], version["run_id"])

    def dag_address(self, step: str) -> str:
        """A DAG of the use case in Airflow, by what it does: `ingest` or `train`."""
        return in_airflow(self.settings, f"dags/{self.name}_{step}")

    def call_address(self) -> str:
        """The call for predictions in the API's documentation."""
        return f"{self.settings.docs_url}#/predict/predict_{self.name}"


@st.cache_resource(max_entries=32, show_spinner=False)
def _client(url: str, key: str) -> Client:
    return Client(url, timeout=TIMEOUT_SECONDS, attempts=1, key=key)


@st.cache_data(ttl=KEPT_SECONDS, max_entries=200, show_spinner=False)
def _kept(_call: Callable[..., Any], name: str, url: str, key: str, arguments: tuple[Any, ...]) -> Any:
    return _call(*arguments)
