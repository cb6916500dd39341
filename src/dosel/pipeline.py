"""Ingest, train, register, promote: the steps that DAG tasks, API calls and commands call.

Each step is a transaction: killed anywhere and called again, it gives the same result. Steps pass references to each
other (a run's id, a version's number), never data.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dosel.challenge import Challenge, Outcome
from dosel.closed import shown
from dosel.db.engine import connect
from dosel.errors import AccountingError, QualityError, SourceError
from dosel.model import tags
from dosel.monitor.context import try_to_update_context
from dosel.monitor.delivery import try_to_deliver
from dosel.monitor.harm import describe, is_harmed, training_seed, watch_for_harm
from dosel.monitor.health import Health, health
from dosel.monitor.incidents import audit_mismatch
from dosel.monitor.shadowing import decide
from dosel.monitor.truths import TruthStore
from dosel.monitor.watch import Watch
from dosel.notices import leave_out_notices
from dosel.quality import check
from dosel.registry.manifests import Manifest
from dosel.registry.registry import Registry
from dosel.registry.side_by_side import VersionComparison, compare
from dosel.rows import hashing
from dosel.rows.text import as_text
from dosel.rows.validation import without_values
from dosel.settings import Settings
from dosel.sources.base import Batch, Source
from dosel.sources.lake import open_lake
from dosel.sources.opened import source_of
from dosel.sources.table import Table
from dosel.training.input_digests import family_key
from dosel.usecases import UseCase, adapted
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.events import EventStore
from dosel.warehouse.records import BatchRecord, counted, in_words

if TYPE_CHECKING:
    # Importing these takes seconds, which the other steps do without.
    from dosel.training.candidates import CandidateCallback
    from dosel.training.train import TrainingData

MAX_BATCHES = 1000
"""Most batches of one ingest, in case a source never ends."""

LOGGED_BATCHES = 20
"""Batches of one ingest that have a line in the log; the last line counts all."""

log = logging.getLogger(__name__)


class Pipeline:
    """The steps of one use case, with one installation's settings."""

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        bound_mlflow_requests()
        leave_out_notices()
        engine = connect(settings.warehouse_url)
        self._settings = settings
        self._engine = engine
        self._registry = Registry.opened(settings, engine)
        use_case = adapted(use_case, settings)
        # The split is the declared one until the looks at its holdout are used up.
        use_case = replace(use_case, split=self._registry.holdout(use_case).split)
        self._use_case = use_case
        self._batches = BatchStore(engine, use_case)

    @property
    def batches(self) -> BatchStore:
        return self._batches

    @property
    def registry(self) -> Registry:
        return self._registry

    def health(self) -> Health | None:
        """The health of the version in Production; None while there is none."""
        return health(self._use_case, self._registry.ledger, TruthStore(self._engine))

    def source(self) -> Source:
        """The source of this use case's rows."""
        return source_of(self._use_case, self._settings)

    def ingest(self, source: Source, on_batch: Callable[[BatchRecord], None] | None = None) -> list[BatchRecord]:
        """Pull batches until the source has no more, or gives one that is stored already.

        Args:
            on_batch: called with each batch as soon as it is stored.

        Returns:
            The new batches; usually none.

        Raises:
            SourceError: the source failed; batches stored before stay.
            QualityError: a batch has too many invalid rows; only its refusal is recorded.
            AccountingError: the tables do not hold the rows that the batch ledger records.
        """
        stored: list[BatchRecord] = []
        with self._messages():
            while (record := self._pull(source)) is not None:
                stored.append(record)
                if len(stored) <= LOGGED_BATCHES:
                    log.info("batch %d of %s: %s", record.number, record.stream, in_words([record]))
                if on_batch is not None:
                    on_batch(record)
                if len(stored) == MAX_BATCHES:
                    raise SourceError(
                        f"the source gave {MAX_BATCHES} batches and has not ended; is it the right source?"
                    )
            try:
                records = self._batches.audit()
            except AccountingError as error:
                EventStore(self._engine).add(audit_mismatch(self._use_case.name, error))
                raise
            log.info("new batches: %d; %s", len(stored), in_words(stored))
            log.info("all batches: %d; %s; the tables hold every one of these rows", len(records), in_words(records))
        return stored

    @contextmanager
    def _messages(self) -> Iterator[None]:
        """After the block, also if it fails, try to deliver its events."""
        try:
            yield
        finally:
            try_to_deliver(self._engine, self._settings)

    def _pull(self, source: Source) -> BatchRecord | None:
        """Store the next batch; None if there is no new one. Returning frees the batch's rows."""
        batch = source.next_batch()
        if batch is None:
            log.info("the source has no more batches")
            return None
        record = None if self._batches.holds(batch) else self._store(batch)
        if record is None:
            log.info("batch %d of %s is already stored", batch.number, batch.stream)
        return record

    def _store(self, batch: Batch) -> BatchRecord | None:
        """Check a batch and store it; None if another process has just stored it."""
        text = as_text(batch.rows, self._use_case.columns)
        checked = check(self._use_case, batch.rows, batch.coding, text)
        refused, received = len(checked.refused), len(batch.rows)
        if refused > self._use_case.max_refused_share * received:
            # Read by people who may not see the rows.
            shown = (lambda why: why) if self._use_case.expose_training_rows else without_values
            # From 1, as people count.
            first = "; ".join(f"row {i + 1}: {shown(why)}" for i, why in list(checked.refused.items())[:3])
            reason = (
                f"{refused} of {received} rows are invalid, more than {self._use_case.max_refused_share:.0%}; "
                "nothing of the batch is stored"
            )
            self._batches.refuse(batch, checked.refused, reason, text)
            raise QualityError(f"batch {batch.number} of {batch.stream}: {reason}. {first}")
        return self._batches.store(batch, checked.accepted, checked.refused, text)

    def process(self) -> str | None:
        """Log the preprocessed training and test rows and write them to the lake, if declared; return the run's id."""
        if not self._use_case.processed:
            return None
        data = self._training_data()
        if data.table.empty:
            return None
        from dosel.training.processed_data import process

        records = self._batches.records()
        source = self.source()
        params: dict[str, str] = {"source": records[-1].source}
        if isinstance(source, Table):
            params["columns_left_out"] = ", ".join(source.left_out())
        lake, tracking_uri = open_lake(self._settings), self._settings.tracking_uri
        return process(self._use_case, data, counted(records), params, lake, tracking_uri)

    def score(self) -> list[int]:
        """Score the version in Production on new labelled batches, before a model trains on them; test for harm.

        Returns:
            The ids of the scored batches; none while nothing is in Production.
        """
        with self._messages():
            scored = Watch(self._use_case, self._registry, self._batches, self._engine).score_batches()
            found = watch_for_harm(self._use_case, self._registry, self._engine)
            state = shown(self._use_case, describe(found)) if found else "nothing is in Production"
            log.info("%s: %s", self._use_case.model_name, state)
            decide(self._use_case, self._registry, self._engine)
        for shadow in self._registry.ledger.open_shadows(self._use_case.model_name):
            log.info("version %d answers in shadow until %s", shadow.version, f"{shadow.ends_at:%Y-%m-%d %H:%M} UTC")
        try_to_update_context(self._use_case, self._registry, self._engine)
        return scored

    def training_reason(self) -> str:
        """Why a training that is due starts, as readers of Airflow and MLflow see it."""
        reason: str = shown(self._use_case, training_seed(self._engine, self._use_case, self._settings.seed)[1])
        return reason

    def training_due(self) -> bool:
        """Whether the ledger lacks a judged version that this dosel would train on the current clean rows.

        After a proven harm, a training is due once more, if the use case declares `retrain`.
        """
        keys = self._batches.keys()
        if not keys:
            return False
        data_digest = hashing.digest(np.concatenate(list(keys.values())))
        use_case, ledger = self._use_case, self._registry.ledger
        seed, _ = training_seed(self._engine, use_case, self._settings.seed)
        wanted = {family_key(use_case, family, data_digest, seed) for family in use_case.families}
        mine = {
            key: manifest
            for manifest in reversed(ledger.manifests(use_case.model_name))
            if manifest.facts and (key := manifest.facts.tags.get(tags.FAMILY_KEY)) in wanted
        }
        if mine.keys() != wanted:
            return True
        best = max(mine.values(), key=_cross_validation_score)
        if self._registry.store.run_of(best.model, best.version) != best.run_id:
            return True
        entered = {entry.to_version for entry in ledger.history(best.model)}
        if best.version in entered | {shadow.version for shadow in ledger.shadows(best.model)}:
            return False
        verdict = ledger.verdicts(best.model).get((best.version, best.run_id))
        # A passed version without an entry: the task was killed, or the version waits for another version's shadow to
        # end, or for approvals.
        last, approvals = ledger.last(best.model), self._registry.approvals
        waits = any(shadow.role == "challenger" for shadow in ledger.open_shadows(best.model)) or any(
            request.subject.version == best.version
            for request in approvals.open(best.model, last.sequence if last else 0)
        )
        return verdict is None or (verdict.passed and not waits)

    def train(self, on_candidate: "CandidateCallback | None" = None) -> str:
        """Train on all clean rows and return the id of the run that compares the families.

        Args:
            on_candidate: called with each candidate as soon as it is scored.
        """
        from dosel.training.engines import engine_of, partitioned_data
        from dosel.training.train import train

        use_case, s = self._use_case, self._settings
        ledger = self._registry.ledger
        seed, reason = training_seed(self._engine, use_case, s.seed)
        with engine_of(use_case, s) as engine:
            split = use_case.is_partitioned
            data = partitioned_data(use_case, self._batches, engine, s) if split else self._training_data()
            run_id = train(use_case, data, s.tracking_uri, ledger, seed, engine, on_candidate, s.studies_url)
        self._registry.store.note_run(run_id, f"Reason of the training: {shown(use_case, reason)}.")
        return run_id

    def register(self, run_id: str) -> int:
        """Register each family's model and return the version number of the best one, the challenger.

        Raises:
            UntrustedModel: the artifact store does not hold the files that the training wrote.
        """
        versions = {}
        for family, of_family in self._registry.store.compared(run_id).items():
            versions[family] = version = self._registry.register(self._use_case, of_family)
            if tags.GATE not in version.tags:
                self._registry.write_card(self._use_case, version)
            log.info("run %s is %s version %d (%s)", of_family, version.name, version.version, family)
        # By the ledger: the comparison's own tags can be edited in MLflow.
        best = max(versions, key=lambda family: versions[family].metrics["best_cv_score"])
        number, metric = versions[best].version, self._use_case.gate.metric
        score = versions[best].metrics["best_cv_score"]
        log.info("version %d (%s) is the challenger: cross-validation %s %.4f", number, best, metric, score)
        for family, version in versions.items():
            if family != best and tags.GATE not in version.tags:
                score = version.metrics["best_cv_score"]
                text = (
                    f"The best {family} of its training: cross-validation {metric} {score:.4f}. "
                    f"Version {number} ({best}) scored higher and became the challenger.{self._use_case.caveat}"
                )
                self._registry.note(version, {}, {}, text)
        return number

    def challenge(self, number: int, actor: str) -> Outcome:
        """Promote a version if every rule of the gate holds against the champion.

        If the use case declares a shadow, a version that passes answers live rows in shadow first, unless there is no
        champion to compare with. While another version is in shadow, the version waits until that shadow has ended, or
        takes its place if the champion is harmed.

        Args:
            actor: name of the person or task that calls, for the ledger.

        Raises:
            PromotionConflict: Production kept changing during the evaluation; try again.
        """
        with self._messages():
            rows, seed = self._batches.clean_by_batch, self._settings.seed
            harmed = partial(is_harmed, self._engine)
            outcome = Challenge(self._use_case, self._registry, rows, seed, harmed).run(number, actor)
            decide(self._use_case, self._registry, self._engine)
            return outcome

    def compare(self, a: int, b: int) -> VersionComparison:
        """Two versions side by side, on the held-out rows that neither was trained on; as `side_by_side.compare`."""
        rows = self._batches.clean_by_batch
        return compare(self._registry, self._use_case, rows, (a, b), self._settings.seed)

    def _training_data(self) -> "TrainingData":
        from dosel.training.train import TrainingData

        clean = self._batches.clean()
        return TrainingData(
            table=clean.drop(columns=["batch_id", "row_key"]),
            keys=clean["row_key"].to_numpy(dtype=np.int64),
            batch_ids=tuple(int(i) for i in clean["batch_id"].unique()),
            lake=open_lake(self._settings),
        )


def _cross_validation_score(manifest: Manifest) -> float:
    assert manifest.facts is not None
    return manifest.facts.metrics["best_cv_score"]


def bound_mlflow_requests() -> None:
    """Limit MLflow's own retries, which would take minutes: Airflow retries the task instead."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
