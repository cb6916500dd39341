"""The pipeline at work, read off its own records: the batch ledger, MLflow's runs, the promotion ledger."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from mlflow import MlflowClient

from dosel.embedded.airflow_runs import AirflowRuns, Trouble
from dosel.errors import DoselError, StartupError
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.training.progress import candidates_since
from dosel.usecases import UseCase


@dataclass(frozen=True)
class News:
    """Something that happened, in a line; `stage` is what the platform is busy with since."""

    line: str
    stage: str


class Progress:
    """Follows one use case. Each `look` tells what is new since the one before."""

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        self._use_case = use_case
        self._since = datetime.now(UTC)
        self._pipeline = Pipeline(use_case, settings)
        self._client = MlflowClient(settings.tracking_uri)
        self._airflow = AirflowRuns(settings)
        self._batches = {record.id for record in self._pipeline.batches.records()}
        self._candidates: set[str] = set()
        self._best: dict[str, float] = {}
        self._production: int | None = None
        self._troubles: set[tuple[str, str, int]] = set()
        self.phases: dict[str, float] = {}
        """Seconds each phase took so far."""

    @property
    def production(self) -> int | None:
        """The version in Production, as of the last look."""
        return self._production

    def nudge(self) -> None:
        """Has the ingest run now if nothing is in Production: what an earlier start left half-done goes on."""
        with suppress(DoselError, httpx.HTTPError):
            if self._pipeline.registry.production_number(self._use_case.model_name) is None:
                self._airflow.start_run(f"{self._use_case.name}_ingest")

    def look(self) -> list[News]:
        """What is new.

        Raises:
            StartupError: a task failed for good; the message has the reason and the log's place.
        """
        news: list[News] = []
        # A service that does not answer this second is news for the one who watches services, not here.
        with suppress(DoselError, httpx.HTTPError):
            news += self._new_batches()
        with suppress(DoselError, httpx.HTTPError):
            news += self._new_candidates()
        with suppress(DoselError, httpx.HTTPError):
            news += self._new_version()
        with suppress(httpx.HTTPError):
            news += self._new_troubles()
        return news

    def _new_batches(self) -> list[News]:
        news = []
        for record in self._pipeline.batches.records():
            if record.id in self._batches:
                continue
            self._batches.add(record.id)
            kept = f"{record.rows_clean:,} of {record.rows_received:,} rows kept"
            left_out = [
                f"{count:,} {word}"
                for count, word in ((record.rows_refused, "refused"), (record.rows_duplicate, "duplicates"))
                if count
            ]
            line = f"batch {record.number:>2}   {', '.join([kept, *left_out])}"
            news.append(self._say(line, "batches", "pulling batches"))
        return news

    def _new_candidates(self) -> list[News]:
        news = []
        for seen in candidates_since(self._client, self._use_case.experiment, self._since):
            if seen.run_id in self._candidates:
                continue
            self._candidates.add(seen.run_id)
            best = max(self._best.get(seen.search, 0.0), seen.score)
            self._best[seen.search] = best
            tried = f"{seen.family} {seen.position}"
            line = f"candidate {tried:>5}   {seen.params:<52} {seen.score:.4f}   best {best:.4f}"
            news.append(self._say(line, "search", f"searching, {tried} done, best {best:.4f}"))
        return news

    def _new_version(self) -> list[News]:
        number = self._pipeline.registry.production_number(self._use_case.model_name)
        if number is None or number == self._production:
            return []
        self._production = number
        last = self._pipeline.registry.last_promotion(self._use_case.model_name)
        line = f"Production   {self._use_case.model_name} version {number}" + (f": {last.reason}" if last else "")
        return [self._say(line, "production", "waiting for the API to load it")]

    def _new_troubles(self) -> list[News]:
        news = []
        for dag in (f"{self._use_case.name}_ingest", f"{self._use_case.name}_train"):
            for trouble in self._airflow.troubles(dag, self._since):
                key = (trouble.dag, trouble.task, trouble.attempt)
                if trouble.final:
                    raise StartupError(_in_words(trouble) + f"\nIts log: {trouble.log}")
                if key not in self._troubles:
                    self._troubles.add(key)
                    news.append(News(f"{_in_words(trouble)}; trying again", "trying again"))
        return news

    def _say(self, line: str, phase: str, stage: str) -> News:
        before = sum(seconds for name, seconds in self.phases.items() if name != phase)
        self.phases[phase] = (datetime.now(UTC) - self._since).total_seconds() - before
        return News(f"{self._use_case.name}   {line}", stage)


def _in_words(trouble: Trouble) -> str:
    return f"{trouble.dag}: task {trouble.task} failed, try {trouble.attempt} of {trouble.attempts}: {trouble.reason}"
