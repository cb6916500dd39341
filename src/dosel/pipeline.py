"""Ingest, train, register, promote: what a DAG task, an API call or a command calls.

Each function is a transaction: ended anywhere and called again, the result is the same. What passes
between them is references (a run's id, a version's number), never data.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dosel import rows
from dosel.errors import ModelNotFound, QualityError, SourceError
from dosel.quality import check
from dosel.registry import ModelVersion, Registry, Verdict, decide
from dosel.settings import Settings
from dosel.sources import Batch, DataApi, Source, as_text
from dosel.training.tracking import KEY as TRAINING_KEY
from dosel.training.train import TrainingData, train, training_key
from dosel.usecases import UseCase
from dosel.warehouse import BatchRecord, BatchStore, PromotionLedger, connect

MAX_BATCHES = 1000
"""A source that never says it is done ends the run here instead of never."""

JUDGED = "dosel.gate"
"""Tag of a run whose version went through the gate: "passed" or "refused"."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What the gate decided about a version."""

    version: int
    promoted: bool
    reason: str


class Pipeline:
    """The rooms of one use case, opened with one installation's settings."""

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        _bound_mlflow_requests()
        engine = connect(settings.warehouse_url)
        self._use_case = use_case
        self._settings = settings
        self._batches = BatchStore(engine, use_case)
        self._registry = Registry(settings.tracking_uri, PromotionLedger(engine))

    @property
    def batches(self) -> BatchStore:
        return self._batches

    @property
    def registry(self) -> Registry:
        return self._registry

    def source(self) -> Source:
        """Where this use case's rows come from."""
        s = self._settings
        return DataApi(s.data_api_url, s.data_api_group, s.data_api_classes, s.source_timeout)

    def ingest(self, source: Source, told: Callable[[BatchRecord], None] | None = None) -> list[BatchRecord]:
        """Pulls what is due: until the source is done, or gives a batch that is stored already.

        Args:
            told: is called with each batch that was stored, in the moment it is safe.

        Returns:
            The batches that are new; none is the usual answer of a source that is done.

        Raises:
            SourceError: the source failed; what was pulled before stays.
            QualityError: a batch has too many unacceptable rows; nothing of it is stored.
            AccountingError: the warehouse does not hold what its ledger says.
        """
        stored: list[BatchRecord] = []
        while (record := self._pull(source)) is not None:
            stored.append(record)
            if told is not None:
                told(record)
            if len(stored) == MAX_BATCHES:
                raise SourceError(f"the source gave {MAX_BATCHES} batches and did not end; is it the right one?")
        self._batches.audit()
        return stored

    def _pull(self, source: Source) -> BatchRecord | None:
        """The next batch, stored; None if there is none that is new. When it returns, its rows are forgotten."""
        batch = source.next_batch()
        if batch is None:
            log.info("the source has no more batches")
            return None
        record = None if self._batches.holds(batch) else self._store(batch)
        if record is None:
            log.info("batch %d of %s is stored already; nothing is due", batch.number, batch.stream)
        return record

    def _store(self, batch: Batch) -> BatchRecord | None:
        """Checks a batch and stores it; None if somebody else just did."""
        text = as_text(batch.rows, self._use_case.columns)
        checked = check(self._use_case, batch.rows, batch.coding, text)
        refused, received = len(checked.refused), len(batch.rows)
        if refused > self._use_case.max_refused_share * received:
            first = "; ".join(f"row {i}: {why}" for i, why in list(checked.refused.items())[:3])
            raise QualityError(
                f"batch {batch.number} of {batch.stream}: {refused} of {received} rows are unacceptable, "
                f"more than {self._use_case.max_refused_share:.0%}; nothing of it is stored. {first}"
            )
        record = self._batches.store(batch, checked.accepted, checked.refused, text)
        if record is not None:
            log.info(
                "batch %d of %s: %d rows received, %d clean, %d refused, %d duplicates",
                record.number,
                record.stream,
                record.rows_received,
                *record.parts,
            )
        return record

    def training_due(self) -> bool:
        """Whether the rows, as they are now, have not yet led to a version that the gate has judged."""
        data = self._training_data()
        if data.table.empty:
            return False
        key = training_key(self._use_case, data.digest, self._settings.seed)
        versions = self._registry.versions(self._use_case.model_name)
        return not any(v.tags.get(TRAINING_KEY) == key and JUDGED in v.tags for v in versions)

    def train(self) -> str:
        """Trains on everything that is clean, and returns the run's id."""
        s = self._settings
        return train(self._use_case, self._training_data(), s.tracking_uri, s.seed, s.jobs)

    def register(self, run_id: str) -> int:
        """Registers what the run logged, and returns the version's number."""
        version = self._registry.register(self._use_case, run_id)
        log.info("run %s is %s version %d", run_id, version.name, version.version)
        return version.version

    def challenge(self, number: int, actor: str) -> Outcome:
        """Lets a version into Production if it is better there than what is in it, on the same held-out rows.

        Args:
            actor: who or what asks, for the ledger.
        """
        gate, name = self._use_case.gate, self._use_case.model_name
        version = self._registry.version(name, number)
        # A promotion that was killed half-way is finished first, so that the champion is the ledger's.
        self._registry.project(name)
        champion = self._registry.production(name)
        scores: dict[str, float] = {}
        last = self._registry.last_promotion(name)
        if last is not None and last.to_version == number:
            verdict = Verdict(True, last.reason)
        else:
            scores["challenger"] = self._score(version)
            if champion is not None:
                scores["production"] = self._score(champion)
            verdict = decide(gate, scores["challenger"], scores.get("production"))
        if verdict.passed:
            self._registry.promote(version, actor, verdict.reason)
        # Last, since it is what says that this version has been judged: see `training_due`.
        self._registry.note(
            version,
            tags={JUDGED: "passed" if verdict.passed else "refused", "dosel.gate_reason": verdict.reason},
            metrics={f"gate_{side}_{gate.metric}": score for side, score in scores.items()},
            text=f"{'Promoted' if verdict.passed else 'Candidate, not promoted'}: {verdict.reason}.",
        )
        log.info("%s version %d: %s", name, number, verdict.reason)
        return Outcome(number, verdict.passed, verdict.reason)

    def _training_data(self) -> TrainingData:
        clean = self._batches.clean()
        return TrainingData(
            table=clean.drop(columns=["batch_id", "row_key"]),
            keys=clean["row_key"].to_numpy(dtype=np.int64),
            batch_ids=tuple(int(i) for i in clean["batch_id"].unique()),
        )

    def _score(self, version: ModelVersion) -> float:
        """The gate's metric on the held-out rows, by the model as serving would load it."""
        from sklearn.metrics import get_scorer

        table = self._training_data().table
        held_out = table[rows.is_test(self._use_case, table)]
        truth = held_out[self._use_case.target.name].to_numpy(dtype=np.int64)
        scorer = get_scorer(self._use_case.gate.metric)
        model = self._registry.load(version)
        return float(scorer(model, rows.canonical(self._use_case, held_out), truth))


def production_model(registry: Registry, use_case: UseCase) -> ModelVersion:
    """What is in Production.

    Raises:
        ModelNotFound: nothing is yet; the message says what to wait for.
    """
    version = registry.production(use_case.model_name)
    if version is None:
        raise ModelNotFound(
            f"no version of {use_case.model_name} is in Production yet: the DAGs {use_case.name}_ingest and "
            f"{use_case.name}_train bring one there"
        )
    return version


def _bound_mlflow_requests() -> None:
    """MLflow's client would retry for minutes; a task of ours is retried by Airflow instead."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
