"""The pipeline's progress, read from the batch ledger, MLflow's runs and the promotion ledger."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from dosel.db.engine import connect
from dosel.embedded.airflow_runs import AirflowRuns, TaskFailure
from dosel.errors import DeclarationChanged, DoselError
from dosel.registry import mlflow_calls
from dosel.registry.file_verification import check_declaration
from dosel.registry.registry import Registry
from dosel.registry.training_progress import CandidateProgress, candidates_since
from dosel.settings import Settings
from dosel.terminal import Bar, Tally, searching
from dosel.usecases import UseCase, adapted
from dosel.warehouse.batch_ledger import BatchLedger
from dosel.warehouse.records import BatchRecord

LULL_SECONDS = 10
"""A pull ends after this time without a batch."""


@dataclass
class Pull:
    """Batches that were stored shortly after each other."""

    first: datetime
    last: datetime
    tally: Tally = field(default_factory=Tally)
    first_rows: int = 0

    def add(self, record: BatchRecord) -> None:
        self.tally.add(record)
        self.first_rows = self.first_rows or record.rows_received
        self.last = record.received_at

    def describe(self) -> str:
        seconds = (self.last - self.first).total_seconds()
        # The first batch came before the clock started.
        return self.tally.describe((self.tally.rows - self.first_rows) / seconds if seconds > 0 else None)


@dataclass
class Search:
    """A running search: number of scored candidates, and the best score so far."""

    family: str
    of: int = 0
    done: int = 0
    best: float = 0.0

    def add(self, seen: CandidateProgress) -> None:
        self.of = seen.of
        self.done += 1
        self.best = max(self.best, seen.score)


class Progress:
    """Follows one use case. Each `poll` returns what is new since the last one."""

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        self._use_case = use_case
        self._since = datetime.now(UTC)
        engine = connect(settings.warehouse_url)
        self._ledger = BatchLedger(engine, adapted(use_case, settings))
        self._registry = Registry.opened(settings, engine)
        self._mlflow = mlflow_calls.connect(settings.tracking_uri)
        self._airflow = AirflowRuns(settings)
        self._batches = {record.id for record in self._ledger.records()}
        self._candidates: set[str] = set()
        self._searches: dict[str, Search] = {}
        self._pull: Pull | None = None
        self._now: dict[str, str] = {}
        self.stage = "waiting for Airflow to start the first run"
        """What the use case is doing, for the progress bar."""
        self.production: int | None = None
        """The version in Production at the last poll."""
        self.failed = ""
        """Why a task failed that Airflow does not try again, and its log; "" if none did."""
        self._failures: set[tuple[str, str, int]] = set()
        self.phases: dict[str, float] = {}
        """Seconds by phase."""

    def bars(self) -> list[Bar]:
        """Bars at the last poll: the batches being stored, and each family's unfinished search."""
        name = self._use_case.name
        # A killed search never finishes; the retried search of the same family replaces it.
        searches = (self._searches[run] for run in self._now.values())
        bars = [searching(f"{name} {s.family}", s.done, s.of, s.best) for s in searches if s.done < s.of]
        if self._pull and datetime.now(UTC) - self._pull.last < timedelta(seconds=LULL_SECONDS):
            bars.insert(0, Bar(f"{name} batches", self._pull.describe()))
        return bars

    def start_ingest(self) -> None:
        """Start the ingest DAG now if there are no rows, or no version that the API can answer with.

        So a start continues what an earlier one left unfinished, and goes on after a reset or another declaration.
        """
        with suppress(DoselError, httpx.HTTPError):
            if not self._batches or not self._has_usable_version():
                self._airflow.start_run(f"{self._use_case.name}_ingest")

    def _has_usable_version(self) -> bool:
        """Whether a version is in Production that was trained for columns of this meaning."""
        name = self._use_case.model_name
        entry = self._registry.last_promotion(name)
        if entry is None or self._registry.production_number(name) is None:
            return False
        manifest = self._registry.ledger.manifest(name, entry.to_version, entry.evidence.to_run or "")
        try:
            if manifest is not None:
                check_declaration(self._use_case, manifest)
        except DeclarationChanged:
            return False
        return True

    def poll(self, mlflow: bool = True, airflow: bool = True) -> list[str]:
        """What is new, one line each.

        Args:
            mlflow: ask MLflow for candidates, too.
            airflow: ask Airflow for failed tasks, too. Each answer of either costs a hundred times one of the data
                store.
        """
        news: list[str] = []
        # A service that does not answer now is reported by the check of the services, not here.
        looks = (self._new_batches, *([self._new_candidates] if mlflow else []), self._new_version)
        for look in looks:
            with suppress(DoselError, mlflow_calls.Refused, mlflow_calls.Unreachable):
                news += look()
        if airflow:
            with suppress(httpx.HTTPError):
                news += self._new_failures()
        return news

    def _new_batches(self) -> list[str]:
        news = []
        for record in self._ledger.records():
            if record.id in self._batches:
                continue
            self._batches.add(record.id)
            if self._pull is None or record.received_at - self._pull.last > timedelta(seconds=LULL_SECONDS):
                self._pull = Pull(record.received_at, record.received_at)
            self._pull.add(record)
            kept = f"{record.rows_clean:,} of {record.rows_received:,} rows kept"
            left_out = [
                f"{count:,} {word}"
                for count, word in ((record.rows_refused, "refused"), (record.rows_duplicate, "duplicates"))
                if count
            ]
            line = f"batch {record.number:>2}   {', '.join([kept, *left_out])}"
            news.append(self._line(line, "batches", "pulling batches"))
        return news

    def _new_candidates(self) -> list[str]:
        news = []
        for seen in candidates_since(self._mlflow, self._use_case.experiment, self._since):
            if seen.run_id in self._candidates:
                continue
            self._candidates.add(seen.run_id)
            self._now[seen.family] = seen.search
            search = self._searches.setdefault(seen.search, Search(seen.family))
            search.add(seen)
            tried = f"{seen.family} {seen.position}"
            line = f"candidate {tried:>5}   {seen.params:<52} {seen.score:.4f}   best {search.best:.4f}"
            news.append(self._line(line, "search", f"{tried} done, best {search.best:.4f}; the gate decides"))
        return news

    def _new_version(self) -> list[str]:
        last = self._registry.last_promotion(self._use_case.model_name)
        if last is None or last.to_version == self.production:
            return []
        self.production = last.to_version
        self._pull = None
        line = f"Production   {self._use_case.model_name} version {last.to_version}: {last.reason}"
        return [self._line(line, "production", "waiting for the API to load it")]

    def _new_failures(self) -> list[str]:
        news = []
        for dag in (f"{self._use_case.name}_ingest", f"{self._use_case.name}_train"):
            for failure in self._airflow.failures(dag, self._since):
                key = (failure.dag, failure.task, failure.attempt)
                if key in self._failures:
                    continue
                self._failures.add(key)
                if failure.final:
                    self.stage, self.failed = "failed", f"{_describe(failure)}\nIts log: {failure.log}"
                    news.append(self.failed)
                else:
                    self.stage = "retrying"
                    news.append(f"{_describe(failure)}; {self.stage}")
        return news

    def _line(self, line: str, phase: str, stage: str) -> str:
        before = sum(seconds for name, seconds in self.phases.items() if name != phase)
        self.phases[phase] = (datetime.now(UTC) - self._since).total_seconds() - before
        self.stage = stage
        return f"{self._use_case.name}   {line}"


def _describe(failure: TaskFailure) -> str:
    attempt = f"attempt {failure.attempt} of {failure.attempts}"
    return f"{failure.dag}: task {failure.task} failed ({attempt}): {failure.reason}"
