"""Ingest, train, register, promote: what a DAG task, an API call or a command calls.

Each function is a transaction: ended anywhere and called again, the result is the same. What passes
between them is references (a run's id, a version's number), never data.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dosel.db.engine import connect
from dosel.errors import ModelNotFound, PromotionConflict, QualityError, SourceError
from dosel.model import tags
from dosel.quality import check
from dosel.registry.gate import Report, judge
from dosel.registry.ledger import Evidence, Promotion, PromotionLedger
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.rows import frames, hashing
from dosel.rows.text import as_text
from dosel.settings import Settings
from dosel.sources import Batch, Source
from dosel.sources.lake import open_lake
from dosel.sources.opened import source_of
from dosel.sources.table import Table
from dosel.training.candidates import CandidateCallback
from dosel.training.train import TrainingData, train, training_key
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord

MAX_BATCHES = 1000
"""A source that never says it is done ends the run here instead of never."""

CHALLENGES = 3
"""How often a version is judged anew since Production was moved meanwhile."""

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
        bound_mlflow_requests()
        use_case = use_case.with_trials(settings.trials)
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
        return source_of(self._use_case, self._settings)

    def ingest(self, source: Source, on_batch: Callable[[BatchRecord], None] | None = None) -> list[BatchRecord]:
        """Pulls what is due: until the source is done, or gives a batch that is stored already.

        Args:
            on_batch: called with each batch as soon as it is stored.

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
            if on_batch is not None:
                on_batch(record)
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

    def process(self) -> str | None:
        """Describes the sets a training works on and keeps them in the lake, where that is declared; the run's id."""
        data = self._training_data()
        if not self._use_case.processed or data.table.empty:
            return None
        from dosel.training.processed import process

        records = self._batches.records()
        counts = {
            "received": sum(record.rows_received for record in records),
            "clean": sum(record.rows_clean for record in records),
            "refused": sum(record.rows_refused for record in records),
            "duplicate": sum(record.rows_duplicate for record in records),
        }
        source = self.source()
        said: dict[str, str] = {"source": records[-1].source}
        if isinstance(source, Table):
            said["columns_left_out"] = ", ".join(source.left_out())
        return process(self._use_case, data, counts, said, open_lake(self._settings), self._settings.tracking_uri)

    def training_due(self) -> bool:
        """Whether the rows, as they are now, have not yet led to a version that has a manifest and was judged."""
        data = self._training_data()
        if data.table.empty:
            return False
        key = training_key(self._use_case, data.digest, self._settings.seed)
        versions = self._registry.versions(self._use_case.model_name)
        mine = [v for v in versions if v.tags.get(tags.TRAINING_KEY) == key and tags.GATE in v.tags]
        return not any(self._registry.manifest(version) for version in mine)

    def train(self, on_candidate: CandidateCallback | None = None) -> str:
        """Trains on everything that is clean, and returns the id of the run that compares the families.

        Args:
            on_candidate: called with each candidate as soon as it is scored.
        """
        s = self._settings
        return train(self._use_case, self._training_data(), s.tracking_uri, s.seed, s.jobs, on_candidate, s.studies_url)

    def register(self, run_id: str) -> int:
        """Registers each family's model, and returns the number of the best one's version: the one to challenge."""
        runs, best = self._registry.store.compared(run_id)
        versions = {}
        for family, of_family in runs.items():
            versions[family] = version = self._registry.register(self._use_case, of_family)
            log.info("run %s is %s version %d, %s", of_family, version.name, version.version, family)
        number, metric = versions[best].version, self._use_case.gate.metric
        for family, version in versions.items():
            if family != best and tags.GATE not in version.tags:
                score = version.metrics["best_cv_score"]
                text = (
                    f"The best {family} of its training: {metric} {score:.4f} over the folds. "
                    f"Version {number}, {best}, had the best folds and went to the gate in its stead."
                )
                self._registry.note(version, {}, {}, text)
        return number

    def challenge(self, number: int, actor: str) -> Outcome:
        """Lets a version into Production if every rule of the gate holds against what is in it.

        Args:
            actor: who or what asks, for the ledger.

        Raises:
            PromotionConflict: others kept moving Production while the gate looked at it; try again.
        """
        name = self._use_case.model_name
        version = self._registry.version(name, number)
        for _ in range(CHALLENGES):
            # What was ended half-way is finished first, so that the champion is the ledger's.
            now = self._registry.reconcile(name)
            if now.entry is not None and now.version is not None and now.version.version == number:
                return self._judged_before(version, now.entry)
            report = self._judge(version, now.version)
            # Before it enters: serving heeds these as it loads the version.
            self._registry.tag_run(version, report.backend_tags)
            if report.passed:
                try:
                    after = now.entry.sequence if now.entry else 0
                    self._registry.promote(version, actor, report.reason, self._evidence(version, report), after)
                except PromotionConflict:
                    log.info("%s: somebody moved Production meanwhile; version %d is judged anew", name, number)
                    continue
            return self._noted(version, report)
        raise PromotionConflict(f"{name}: Production was moved {CHALLENGES} times while version {number} was judged")

    def _judged_before(self, version: ModelVersion, entry: Promotion) -> Outcome:
        """What there is to say of a version that is in Production: ended after that, its gate has not said it yet."""
        if entry.evidence.gate is not None:
            return self._noted(version, Report.read(entry.evidence.gate))
        self._registry.note(version, {tags.GATE: "passed", tags.GATE_REASON: entry.reason}, {}, entry.reason)
        return Outcome(version.version, True, entry.reason)

    def _judge(self, challenger: ModelVersion, champion: ModelVersion | None) -> Report:
        from dosel.registry.scoring import evaluate_version

        use_case = self._use_case
        table = self._training_data().table
        held_out = table[hashing.is_test(use_case, table)]
        features = frames.canonical(use_case, held_out)
        sides = [evaluate_version(self._registry, use_case, v, features) if v else None for v in (challenger, champion)]
        assert sides[0] is not None
        return judge(
            use_case.gate,
            use_case.target,
            held_out[use_case.target.name].to_numpy(dtype=np.int64),
            hashing.split_version(use_case),
            sides[0],
            sides[1],
            self._settings.seed,
        )

    def _evidence(self, version: ModelVersion, report: Report) -> Evidence:
        manifest = self._registry.manifest(version)
        return Evidence(
            kind="gate",
            to_run=version.run_id,
            data_digest=version.tags.get(tags.DATA_DIGEST),
            manifest_digest=manifest.digest if manifest else None,
            metrics_before=report.metrics.get("production", {}),
            metrics_after=report.metrics["challenger"],
            gate=report.document(),
        )

    def _noted(self, version: ModelVersion, report: Report) -> Outcome:
        """Tells MLflow what the gate found. The tag comes last: it says that this version has been judged."""
        figures = {f"gate_{side}_{name}": score for side, of in report.metrics.items() for name, score in of.items()}
        figures |= {f"gate_{side}_latency_ms": ms for side, ms in report.latency_ms.items()}
        self._registry.store.write_report(version, report.document())
        verdict = {tags.GATE_REASON: report.reason, tags.GATE: "passed" if report.passed else "refused"}
        self._registry.note(version, verdict, figures, report.table)
        log.info("%s version %d: %s", version.name, version.version, report.reason)
        return Outcome(version.version, report.passed, report.reason)

    def _training_data(self) -> TrainingData:
        clean = self._batches.clean()
        return TrainingData(
            table=clean.drop(columns=["batch_id", "row_key"]),
            keys=clean["row_key"].to_numpy(dtype=np.int64),
            batch_ids=tuple(int(i) for i in clean["batch_id"].unique()),
        )


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


def bound_mlflow_requests() -> None:
    """MLflow's client would retry for minutes; a task of ours is retried by Airflow instead."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
