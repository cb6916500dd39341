"""Scores the version in Production on new labelled batches."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Engine

from dosel.closed import shown
from dosel.errors import DeclarationChanged, UntrustedModel
from dosel.model import tags
from dosel.monitor.joining import add_batch
from dosel.monitor.shadow_state import is_canary
from dosel.monitor.truths import Truths, TruthStore
from dosel.registry.file_verification import check_declaration
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.registry.rollbacks import SHADOW
from dosel.registry.shadows import ShadowEnd, ShadowRecord
from dosel.registry.store import ModelVersion
from dosel.rows import frames
from dosel.rows.columns import Columns
from dosel.rows.hashing import feature_keys
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Watch:
    """The watch over one use case."""

    def __init__(self, use_case: UseCase, registry: Registry, batches: BatchStore, engine: Engine) -> None:
        self._use_case = use_case
        self._registry = registry
        self._batches = batches
        self._engine = engine
        self._truths = TruthStore(engine)

    def score_batches(self) -> list[int]:
        """Let the version in Production answer the labelled batches that came after its training.

        Each batch is scored once, by the version that is in Production then. If rows show that a version is worse and
        it is replaced, the same rows prove nothing about the next one. Rows that were refused or that were there before
        are not among a batch's clean rows, so they do not count.

        If a client asked about a row with the same features before, the batch's class is the truth about that answer,
        unless the use case is closed. A version that was trained for another declaration scores nothing.

        Returns:
            The ids of the batches that were scored now.

        Raises:
            UntrustedModel: the version's files are not those that were registered.
        """
        name = self._use_case.model_name
        version, entry = self._registry.production(name), self._registry.last_promotion(name)
        if version is None or entry is None:
            return []
        done = self._truths.references(name, "batch")
        trained_on = _last_trained_batch(version)
        due = [r for r in self._batches.records() if r.id > trained_on and r.rows_clean and str(r.id) not in done]
        if not due:
            return []
        try:
            estimator, in_shadow = self._loaded(version), self._in_shadow()
        except DeclarationChanged as error:
            # The API does not answer with it, either. The next version is trained on these rows.
            log.warning("nothing is scored: %s", error)
            return []
        scored, right, rows_scored = [], 0, 0
        for record in due:
            rows = self._batches.clean(record.id)
            features = frames.canonical(self._use_case, rows)
            keys = feature_keys(self._use_case, Columns.of(self._use_case, rows))
            shadows = [
                (shadow, np.asarray(other.predict(features), np.int64))
                for shadow, other, trained_on in in_shadow
                # The labels by which a version was promoted are no evidence about the control after that.
                if record.id > trained_on and record.received_at > shadow.at
            ]
            truths = self._answered(estimator.predict(features), entry, str(record.id), rows)
            if add_batch(self._engine, truths, keys, shadows, self._use_case.expose_training_rows):
                scored.append(record.id)
                right += int((truths.truth == truths.answered).sum())
                rows_scored += len(truths.truth)
        if scored:
            figures = (
                f"{name} version {version.version} answered {right:,} of {rows_scored:,} rows of {len(scored):,} new "
                f"batches correctly ({right / rows_scored:.4f})"
            )
            # Readers' keys open Airflow's logs, too.
            log.info("%s", shown(self._use_case, figures))
        return scored

    def _in_shadow(self) -> list[tuple[ShadowRecord, Any, int]]:
        """The versions in shadow, their models, and the last batch of each training.

        A canary is left out: it is judged on the rows that it answers to clients.
        """
        loaded = []
        for shadow in self._registry.ledger.open_shadows(self._use_case.model_name):
            if is_canary(self._use_case, shadow):
                continue
            version = self._registry.version(shadow.model, shadow.version)
            try:
                loaded.append((shadow, self._loaded(version), _last_trained_batch(version)))
            except UntrustedModel as error:
                self._registry.end_shadow(shadow, ShadowEnd("stopped", SHADOW, f"it cannot be loaded: {error}"))
        return loaded

    def _loaded(self, version: ModelVersion) -> Any:
        """The fitted pipeline of a version.

        Raises:
            DeclarationChanged: it was trained for columns of another meaning.
            UntrustedModel: its files are not those that were registered.
        """
        manifest = self._registry.ledger.manifest(version.name, version.version, version.run_id)
        if manifest is not None:
            check_declaration(self._use_case, manifest)
        return self._registry.load(version)

    def _answered(self, answered: Any, entry: Promotion, reference: str, rows: "pd.DataFrame") -> Truths:
        return Truths(
            self._use_case.name,
            entry.model,
            entry.sequence,
            entry.to_version,
            "batch",
            reference,
            datetime.now(UTC),
            rows[self._use_case.target.name].to_numpy(dtype=np.int64),
            np.asarray(answered, dtype=np.int64),
        )


def _last_trained_batch(version: ModelVersion) -> int:
    """The id of the last batch of the version's training; later rows are new to it."""
    listed = version.tags.get(tags.BATCH_IDS, "")
    return max((int(number) for number in listed.strip("[]").split(",") if number.strip().isdigit()), default=0)
