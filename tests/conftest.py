"""What tests of several folders stand on: an environment without settings, and rows as the data API sends them."""

import os
import random
from collections.abc import Callable

import pytest

from dosel.usecases import COVERTYPE, Category, Number

Rows = list[list[str]]
SETTINGS = ("DOSEL_", "MLFLOW_", "AIRFLOW", "DATA_API_", "API_PORT", "MIN_UPDATE_TIME")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's decides what a test sees; MLflow does not report home."""
    for name in os.environ:
        if name.startswith(SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def received() -> Callable[..., Rows]:
    """Makes acceptable rows of covertype, as text; the class follows from the elevation, so it can be learned."""

    def make(count: int, seed: int = 0) -> Rows:
        rng = random.Random(seed)
        return [_row(rng) for _ in range(count)]

    return make


def _row(rng: random.Random) -> list[str]:
    values: list[str] = []
    for feature in COVERTYPE.features:
        match feature:
            case Category():
                values.append(rng.choice(feature.values))
            case Number():
                values.append(str(rng.randint(int(feature.low), int(feature.high))))
    elevation = int(values[0])
    return [*values, str(1 + min(6, (elevation - 1800) * 7 // 2200))]
