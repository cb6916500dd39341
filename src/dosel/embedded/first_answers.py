"""The wait of a start: until each use case has answered a prediction, or its pipeline has failed."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from dosel.client import Client
from dosel.embedded.progress import Progress
from dosel.errors import ServiceError
from dosel.settings import Settings
from dosel.terminal import Bar
from dosel.usecases import UseCase

MLFLOW_EVERY = 4
AIRFLOW_EVERY = 12
"""MLflow is asked for candidates at every fourth poll, Airflow for failed tasks at every twelfth: answers cost these
servers up to 40 ms of processor time, which the tasks lack."""


class FirstAnswers:
    """Follows the pipelines of a start, and asks the API for a first prediction of each use case.

    Args:
        passed: the time since the start, in words.

    Attributes:
        answers: the first answers, by use case.
        answered: each use case that has answered, and when, in the order of the answers.
    """

    def __init__(self, use_cases: Sequence[UseCase], settings: Settings, passed: Callable[[], str]) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.answered: list[tuple[str, str]] = []
        self._use_cases = use_cases
        self._passed = passed
        self._client = Client(settings.api_url, timeout=10, attempts=1, key=settings.own_key)
        self._following = {use_case.name: Progress(use_case, settings) for use_case in use_cases}
        for progress in self._following.values():
            progress.start_ingest()
        self._refusals: dict[str, str] = {}
        self._polls = count()
        self._last_news = time.monotonic()
        self._given_up = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for; if a pipeline failed, a version in Production may still answer."""
        return self._given_up or all(
            name in self.answers or (progress.failed and progress.production is None)
            for name, progress in self._following.items()
        )

    @property
    def failed(self) -> dict[str, str]:
        """Why use cases have not answered, by name."""
        return {n: progress.failed for n, progress in self._following.items() if n not in self.answers}

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase of the use case that answered first."""
        return self._following[self.answered[0][0]].phases

    @property
    def quiet_seconds(self) -> float:
        """Seconds without any news."""
        return time.monotonic() - self._last_news

    def poll(self) -> Iterator[str]:
        """What is new, one line each."""
        poll = next(self._polls)
        for use_case in self._use_cases:
            progress = self._following[use_case.name]
            # Each search of its experiment takes MLflow longer, and nobody waits for it any more.
            searches = poll % MLFLOW_EVERY == 0 and use_case.name not in self.answers
            for line in progress.poll(mlflow=searches, airflow=poll % AIRFLOW_EVERY == 0):
                self._last_news = time.monotonic()
                yield line
            if progress.production is not None and use_case.name not in self.answers:
                self._ask(use_case, progress)

    def give_up(self, reason: str, log: str) -> None:
        """Count the use cases that have not answered as failed; `log` has the last lines of a log."""
        self._given_up = True
        for name, progress in self._following.items():
            if name not in self.answers and not progress.failed:
                progress.failed = f"{name}: {reason}{self._refusals.get(name, '')}\n{log}"

    def bars(self) -> Iterator[Bar]:
        for name, progress in self._following.items():
            yield from progress.bars() or [Bar(name, progress.stage)]

    def _ask(self, use_case: UseCase, progress: Progress) -> None:
        try:
            self.answers[use_case.name] = self._client.predict(use_case.name, use_case.example)
        except ServiceError as error:
            self._refusals[use_case.name] = f"; the API says: {error}"
        else:
            self.answered.append((use_case.name, self._passed()))
            progress.stage = "answers"
