"""One training: from clean rows to a finished run that compares each family's best model."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from mlflow.utils.time import get_current_time_millis

from dosel.model import source, tags
from dosel.model.digest import digest
from dosel.model.facts import HOLDOUT, Facts, TrainingLedger
from dosel.model.fingerprint import code_version, declaration
from dosel.rows import frames, hashing, splits
from dosel.sources.lake import Lake
from dosel.training import search_log, tracking
from dosel.training.candidates import CandidateCallback, ScoredCandidate, plain
from dosel.training.comparison import COUNTS, compare
from dosel.training.evaluation import confusion_figure
from dosel.training.fan_out import Engine
from dosel.training.input_digests import family_key, training_key
from dosel.training.rows import Data, Rows, RowsInMemory
from dosel.training.search import AnySearch
from dosel.usecases import Family, UseCase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Clean rows and their batches.

    Attributes:
        table: the features in canonical types, and the target.
        keys: each row's key, shape (rows,).
        lake: where training rows are kept that are too many for a version's own file; None keeps none.
    """

    table: pd.DataFrame
    keys: Any
    batch_ids: tuple[int, ...]
    lake: Lake | None = None

    @property
    def digest(self) -> str:
        return hashing.digest(self.keys)

    def prepared(self, use_case: UseCase) -> Rows:
        """Split the rows.

        Raises:
            TrainingError: they cannot give a meaningful model.
        """
        return RowsInMemory.of(use_case, self.table, self.digest, self.lake)


def train(
    use_case: UseCase,
    data: Data,
    tracking_uri: str,
    ledger: TrainingLedger,
    seed: int,
    engine: Engine,
    on_candidate: CandidateCallback | None = None,
    studies: str = "",
) -> str:
    """Search each family, compare their best models on the holdout, and log it all.

    A family that is already trained on these rows, and whose files the ledger knows, is not trained again. Parameters
    and the best family are chosen by cross-validation; the holdout decides nothing here.

    Args:
        ledger: where the files of each model are recorded before they are uploaded.
        engine: what scores the candidates; it changes no result.
        on_candidate: called with each candidate as soon as it is scored.
        studies: URL of a database that keeps trials, so that an interrupted search can continue; "" keeps none.

    Returns:
        The id of the finished run that compares the families.

    Raises:
        TrainingError: the rows are too few, or of one class only.
        ClusterError: the cluster of `engine` cannot score candidates.
    """
    mlflow.set_tracking_uri(tracking_uri)
    client = MlflowClient(tracking_uri)
    experiment_id = tracking.open_experiment(client, use_case)
    key = training_key(use_case, data.digest, seed)
    is_attested = partial(ledger.is_attested, use_case.model_name)
    if done := tracking.finished_run(client, experiment_id, key, is_attested):
        log.info("run %s already trained on these rows", done)
        return done
    tracking.close_abandoned(client, experiment_id, key)

    rows = data.prepared(use_case)
    origin = {
        tags.TRAINING_KEY: key,
        tags.USE_CASE: use_case.name,
        tags.CODE_VERSION: code_version(),
        **source.origin(),
        tags.DATA_DIGEST: data.digest,
        tags.BATCH_IDS: list(data.batch_ids),
        tags.SPLIT_VERSION: splits.split_version(use_case),
        tags.ROWS_TRAIN: rows.rows_train,
        tags.ROWS_TEST: rows.rows_held_out,
        tags.CORES: engine.cores(),
        tags.SEED: seed,
    }
    held_out, batches = f"{rows.rows_held_out:,}", len(data.batch_ids)
    log.info("%s training rows and %s held-out rows of %d batches", f"{rows.rows_train:,}", held_out, batches)

    name = tracking.dated(rows.rows_train + rows.rows_held_out)
    with mlflow.start_run(run_name=name) as parent:
        tracking.tag(client, parent.info.run_id, origin | {tags.RUN_KIND: tags.COMPARISON})
        dataset = rows.dataset()
        mlflow.log_input(dataset, context="training")

        def train_family(family: Family) -> str:
            own = family_key(use_case, family, data.digest, seed)
            if done := tracking.adopt_finished(client, experiment_id, own, parent, key, is_attested):
                log.info("run %s already searched %s", done, family.name)
                return done
            # MLflow keeps the open run by thread, so the parent is named.
            above = str(parent.info.run_id)
            with mlflow.start_run(run_name=f"{family.name} · {name}", nested=True, parent_run_id=above) as run:
                of_family = {tags.FAMILY_KEY: own, tags.FAMILY: family.name, tags.RUN_KIND: tags.OF_FAMILY}
                tracking.tag(client, run.info.run_id, origin | of_family)
                mlflow.log_input(dataset, context="training")
                search = rows.search(family, seed, engine, studies, f"{use_case.name} {own}")
                _search_family(use_case, search, rows, client, run, origin | of_family, ledger, on_candidate)
                return str(run.info.run_id)

        at_once = 1 if use_case.is_partitioned else engine.side_by_side
        runs = _side_by_side(engine, at_once, train_family, use_case.families)
        best, score = compare(client, use_case, parent.info.run_id, runs)
        client.update_run(parent.info.run_id, name=tracking.with_score(use_case, score, f"{best} · {name}"))
        tracking.tag(client, parent.info.run_id, {tags.FAMILIES: runs, tags.BEST_FAMILY: best})
        log.info("%s has the best cross-validation score; run %s compares the families", best, parent.info.run_id)
    return str(parent.info.run_id)


def _side_by_side(
    engine: Engine, at_once: int, train_family: Callable[[Family], str], families: Sequence[Family]
) -> dict[str, str]:
    """Train that many families at a time; return the run of each, in the declared order.

    An error of one family is raised when those that have begun have ended, so that a retry finds them finished.
    """
    if at_once == 1:
        return {family.name: train_family(family) for family in families}
    with ThreadPoolExecutor(min(at_once, len(families)), thread_name_prefix="family") as pool:
        trained = {family.name: pool.submit(train_family, family) for family in families}
        try:
            return {name: future.result() for name, future in trained.items()}
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                engine.close()
            raise


def _search_family(
    use_case: UseCase,
    search: AnySearch,
    rows: Rows,
    client: MlflowClient,
    run: Run,
    origin: Mapping[str, Any],
    ledger: TrainingLedger,
    on_candidate: CandidateCallback | None,
) -> None:
    """Search one family and log its best model to the open run, whose tags are `origin`."""
    run_id, family = str(run.info.run_id), origin[tags.FAMILY]
    params = search_log.settings(client, run_id, search)
    with tracking.CandidateRuns(client, run, family, search.estimator) as candidate_runs:
        search.on_candidate = _both(candidate_runs, on_candidate)
        started = perf_counter()
        rows.fit(search)
        candidate_runs.log_speed(perf_counter() - started, origin[tags.CORES])
        candidate_runs.rank(search.cv_results_["rank_test_score"])
        later = candidate_runs.write_later
        training_confusion, figures = rows.on_training_rows(search)
        found = search_log.results(client, run_id, search, figures, later)
        model = search.best_estimator_
        evaluation = rows.on_held_out_rows(model)
        now = get_current_time_millis()
        # MLflow shows them in this order: first those by which people compare runs.
        metrics = [*(Metric(f"{HOLDOUT}{n}", v, now, 0) for n, v in evaluation.metrics.items()), *found.metrics]
        later(partial(client.log_dict, run_id, evaluation.report, "evaluation/per_class_report.json"))
        later(partial(client.log_dict, run_id, {"counts": evaluation.confusion.tolist()}, COUNTS))
        # Drawn in another thread: what follows here mostly waits for MLflow.
        for confusion, of, file in (
            (training_confusion, "training rows", "training_confusion_matrix.png"),
            (evaluation.confusion, "held-out rows", "holdout_confusion_matrix.png"),
        ):
            later(partial(_draw, client, run_id, use_case, confusion, of, file))
        [answer] = model.predict_proba(frames.frame(use_case, [use_case.example]))
        known = dict(zip(map(int, model.classes_), map(float, answer), strict=True))
        own = {tags.EXAMPLE_ANSWER: known, tags.MODEL_DIGEST: digest(model)}
        best, score = tracking.format_params(plain(search.best_params_)), f"{search.best_score_:.4f}"
        note = f"The best {family}: {best}; cross-validation {use_case.gate.metric} {score}."
        client.log_batch(run_id, metrics=metrics, tags=tracking.as_tags({**own, MLFLOW_RUN_NOTE: note}))
        name = tracking.with_score(use_case, evaluation.metrics[use_case.gate.metric], run.info.run_name)
        client.update_run(run_id, name=name)
        facts = Facts(
            {metric.key: metric.value for metric in metrics},
            {**params, **found.params},
            # The keys are not among the run's own tags, whose length MLflow limits.
            tracking.as_texts({**origin, **own, **({tags.ROWS: list(rows.kept)} if rows.kept else {})}),
            declaration(use_case),
        )
        with TemporaryDirectory(prefix="dosel-reference-") as folder:
            files = rows.write(model, Path(folder)) + source.write(Path(folder))
            tracking.log_model(use_case, run, model, facts, ledger, files, metrics)
    rows_held_out = f"{rows.rows_held_out:,}"
    log.info(
        "%s: the best has %s; accuracy %.4f on %s held-out rows; run %s",
        family,
        best,
        evaluation.metrics["accuracy"],
        rows_held_out,
        run_id,
    )


def _draw(client: MlflowClient, run_id: str, use_case: UseCase, confusion: Any, of: str, file: str) -> None:
    client.log_figure(run_id, confusion_figure(use_case.target, confusion, of), file)


def _both(first: CandidateCallback, second: CandidateCallback | None) -> CandidateCallback:
    def call_both(candidate: ScoredCandidate) -> None:
        first(candidate)
        if second is not None:
            second(candidate)

    return call_both
