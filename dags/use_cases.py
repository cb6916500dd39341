"""Two DAGs for each use case: `…_ingest` stores new batches, `…_train` starts when a training is due.

Three more: `dosel_messages` delivers the messages that the tasks could not, `dosel_retention` deletes old entries of
the prediction log once a day, and `dosel_ledgers` verifies the ledgers and signs their head once an hour.

This file has only schedules and wiring. Heavy imports are inside the tasks, since Airflow parses this file before each
task. Tasks pass references to each other: a run's id, a version's number. A task's docstring is its documentation in
Airflow.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, AssetAlias, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dosel.closed_logs import without_figures_of
from dosel.model.description import gate_rules
from dosel.settings import TRAINING_POOL, Settings
from dosel.usecases import UseCase, chosen, named

if TYPE_CHECKING:
    from dosel.pipeline import Pipeline

MESSAGES_EVERY = timedelta(minutes=5)

log = logging.getLogger("dosel.dags")


def report_failure(context: Any) -> None:
    """Write the event of a task that failed after all its retries."""
    from dosel.monitor.incidents import report_failed_task

    report_failed_task(context)


DAG_SETTINGS: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "is_paused_upon_creation": False,
    "default_args": {
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=2),
        "on_failure_callback": report_failure,
    },
}
"""Settings of every DAG: active from the start, one run at a time, with retries."""


def documented(**settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """A task with its docstring as Markdown: with the indentation, its later paragraphs would be code."""

    def make(function: Callable[..., Any]) -> Any:
        return task(doc_md=cleandoc(function.__doc__ or ""), **settings)(function)

    return make


def of_use_case(**settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """A documented task of a use case. Its log has no figures if the use case is closed: readers may read the logs."""

    def make(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def run(use_case_name: str, *given: Any) -> Any:
            with without_figures_of(named(use_case_name)):
                return function(use_case_name, *given)

        return documented(**settings)(run)

    return make


def with_steps(made: DAG, use_case: UseCase, *more: str) -> DAG:
    """Write a DAG's documentation: its first sentences, the first sentence of each task, `more`, and where to read on.

    Tasks have the order in which they run.
    """
    steps = (f"1. `{task.task_id}`: {str(task.doc_md).splitlines()[0]}" for task in in_order(made))
    page = f"{Settings.load().page_url}/history?use_case={use_case.name}"
    manual = "The manual describes them in `docs/ingest.md`, `docs/training.md` and `docs/monitoring.md`."
    look = f"[What was in Production, and why]({page}) is on the page. {manual}"
    made.doc_md = "\n\n".join((str(made.doc_md), "**Steps**", "\n".join(steps), *more, look))
    return made


def in_order(made: DAG) -> list[Any]:
    """A DAG's tasks in the order in which they run: each after those before it."""
    return sorted(made.tasks, key=lambda task: len(task.get_flat_relative_ids(upstream=True)))


def clean_rows_of(use_case_name: str) -> Asset:
    """The asset that the training waits for."""
    return Asset(name=f"{use_case_name}_clean", uri=f"dosel://warehouse/{use_case_name}_clean")


def training_due_of(use_case_name: str) -> AssetAlias:
    """Airflow's asset alias: a task with this outlet decides itself whether it updates the asset."""
    return AssetAlias(f"{use_case_name}_training_due")


def opened(use_case_name: str) -> "Pipeline":
    from dosel.pipeline import Pipeline

    return Pipeline(named(use_case_name), Settings.load())


@of_use_case(execution_timeout=timedelta(minutes=30))
def pull(use_case_name: str) -> list[int]:
    """Store the source's new batches and return their ids.

    Each row is checked. One transaction stores a batch: its line in the batch ledger, its clean rows, and its refused
    rows with the reason. Usually there is no new batch: the source has ended, or its next batch is not due.

    `dosel batches NAME` lists the batches, `dosel quarantine NAME` the refused rows.
    """
    pipeline = opened(use_case_name)
    return [batch.id for batch in pipeline.ingest(pipeline.source())]


@of_use_case(execution_timeout=timedelta(minutes=30))
def score(use_case_name: str) -> list[int]:
    """Score the version in Production on new labelled rows, before a model trains on them; return the batches' ids.

    Batches and feedback on answers are labelled rows. If they prove that the version is worse than the gate found, that
    is an event, and what the use case declares follows: a training, or a rollback. Shadows are judged alike.

    `dosel health NAME` shows the figures, `dosel shadow` the shadows.
    """
    use_case = named(use_case_name)
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger

    # Before the first promotion there is nothing to score, and importing the pipeline takes seconds.
    if PromotionLedger(connect(Settings.load().warehouse_url)).last(use_case.model_name) is None:
        log.info("no version of %s is in Production yet, so nothing is scored", use_case.model_name)
        return []
    return opened(use_case_name).score()


@of_use_case(execution_timeout=timedelta(minutes=30))
def process(use_case_name: str) -> str | None:
    """Write the preprocessed rows to the lake, and return the id of the MLflow run that describes them.

    The rows are for people: training preprocesses its rows itself. Rows that were processed before stay as they are.
    """
    return opened(use_case_name).process()


@of_use_case(execution_timeout=timedelta(minutes=5))
def announce(use_case_name: str) -> None:
    """Start the training if one is due: update the asset that it waits for, with the reason.

    A training is due when no judged version was trained on all clean rows by this dosel, declaration and holdout, when
    the version that passed the gate was not promoted because its task was killed, and after a proven harm, if the use
    case declares `retrain`.
    """
    pipeline = opened(use_case_name)
    if not pipeline.training_due():
        log.info("no training is due: a judged version was trained on all clean rows, or there are no clean rows yet")
        return
    reason = pipeline.training_reason()
    log.info("a training is due: %s", reason)
    outlet = get_current_context()["outlet_events"][training_due_of(use_case_name)]
    outlet.add(clean_rows_of(use_case_name), extra={"reason": reason})


@of_use_case(pool=TRAINING_POOL, execution_timeout=timedelta(hours=12))
def train(use_case_name: str) -> str:
    """Search each family, evaluate its best model on the held-out rows, and return the id of the MLflow run.

    Parameters and the best family are chosen by cross-validation; the held-out rows decide nothing here. MLflow shows
    every candidate while the search runs. A training that was killed continues: finished families are not searched
    again.
    """
    return opened(use_case_name).train()


@of_use_case(execution_timeout=timedelta(minutes=10))
def register(use_case_name: str, mlflow_run: str) -> int:
    """Register each family's best model, and return the version number of the best of them, the challenger.

    The files in the artifact store must be those that the training wrote; otherwise the task fails.
    """
    return opened(use_case_name).register(mlflow_run)


@of_use_case(execution_timeout=timedelta(minutes=30))
def challenge(use_case_name: str, version: int) -> bool:
    """Send the challenger to the gate, and return whether it was promoted.

    Challenger and version in Production answer the same held-out rows. Every rule of the gate must hold. If the use
    case declares a shadow, a version that passes answers live rows in shadow first.

    `dosel history NAME` shows the promotions, `dosel compare NAME 1 3` two versions side by side.
    """
    context = get_current_context()
    actor = f"{context['dag'].dag_id} {context['run_id']}"
    return opened(use_case_name).challenge(version, actor).promoted


@of_use_case(execution_timeout=timedelta(minutes=5))
def warm_up(use_case_name: str, promoted: bool) -> None:
    """Make the API load the promoted version now instead of at its next poll.

    Skipped if Production has not changed: the gate refused the version, it is in shadow, or it waits for approvals.
    """
    if not promoted:
        raise AirflowSkipException("Production has not changed")
    from dosel.client import Client

    settings = Settings.load()
    loaded = Client(settings.api_url, key=settings.api_key).warm_up(use_case_name).get(use_case_name)
    answers = f"version {loaded['version']} of {loaded['model']} ({loaded['form']})" if loaded else "no version"
    log.info("the API at %s answers %s with %s", settings.api_url, use_case_name, answers)


@documented(execution_timeout=timedelta(minutes=5))
def deliver() -> int:
    """Send the messages that are due, and return how many were sent.

    `dosel events` shows each event, and whether its messages were delivered.
    """
    from dosel.db.engine import connect
    from dosel.monitor import delivery

    settings = Settings.load()
    delivered = delivery.deliver(connect(settings.warehouse_url), settings)
    log.info("events delivered: %d; receivers that failed: %d", delivered.sent, delivered.failed)
    return delivered.sent


@dag(
    dag_id="dosel_messages",
    # Without a target there is nothing to deliver: events stay on the page.
    schedule=MESSAGES_EVERY if Settings.load().sends_messages else None,
    tags=["dosel"],
    description="Delivers messages that were not delivered yet",
    doc_md="Delivers the messages that wait: after a failed delivery, until quiet hours end, or to be sent together.",
    **DAG_SETTINGS,
)
def messages() -> None:
    deliver()


@documented(execution_timeout=timedelta(hours=2))
def prune() -> int:
    """Delete answers that are older than `DOSEL_PREDICTION_DAYS`, with the feedback on them; return how many.

    Labelled rows stay, since they hold classes and no features.
    """
    from dosel.db.engine import connect
    from dosel.warehouse.retention import prune as delete

    settings = Settings.load()
    return delete(connect(settings.warehouse_url), settings.prediction_days, settings.prediction_rows)


@dag(
    dag_id="dosel_retention",
    schedule="0 4 * * *",
    tags=["dosel"],
    description="Deletes old entries of the prediction log",
    doc_md="Deletes answers that are older than `DOSEL_PREDICTION_DAYS`, with the feedback on them.",
    **DAG_SETTINGS,
)
def retention() -> None:
    prune()


@documented(execution_timeout=timedelta(minutes=30))
def verify() -> int:
    """Check every entry of the ledgers, sign their head, and return the number of entries.

    The head is signed outside the database. A wrong entry is an event; `dosel verify` names it.
    """
    from dosel.monitor.ledger_watch import verify_ledgers

    return verify_ledgers(Settings.load()).entries


@dag(
    dag_id="dosel_ledgers",
    schedule="@hourly",
    tags=["dosel"],
    description="Verifies the ledgers and signs their head",
    doc_md="Checks every entry of the ledgers, then signs the head of their hash chain outside the database.",
    **DAG_SETTINGS,
)
def ledgers() -> None:
    verify()


def dags_of(use_case: UseCase, ingest_every: timedelta) -> tuple[DAG, DAG]:
    tags = ["dosel", use_case.name]
    dag_settings = DAG_SETTINGS | {
        "default_args": DAG_SETTINGS["default_args"] | {"priority_weight": use_case.priority}
    }

    @dag(
        dag_id=f"{use_case.name}_ingest",
        schedule=ingest_every,
        tags=tags,
        description=f"Stores new batches of {use_case.title} in the data store",
        doc_md=f"Stores new batches of **{use_case.title}** in the data store, and tests whether the version in "
        f"Production is still as good as the gate found. If a training is due, it starts `{use_case.name}_train`.",
        **dag_settings,
    )
    def ingest() -> None:
        announced = announce.override(outlets=[training_due_of(use_case.name)])(use_case.name)
        scored = pull(use_case.name) >> score(use_case.name)
        if use_case.processed:
            scored >> process(use_case.name) >> announced
        else:
            scored >> announced

    @dag(
        dag_id=f"{use_case.name}_train",
        schedule=[clean_rows_of(use_case.name)],
        tags=tags,
        description=f"Trains models for {use_case.title} and promotes the best one if it passes the gate",
        doc_md=f"Trains models for **{use_case.title}** and promotes the best one if it passes the gate.",
        **dag_settings,
    )
    def training() -> None:
        # What a task returns reaches the next one as its value.
        version = register(use_case.name, train(use_case.name))
        warm_up(use_case.name, challenge(use_case.name, version))

    rules = "\n".join(f"- {rule}" for rule in gate_rules(use_case))
    gate = ("**The gate**: what a version needs to enter Production", rules)
    return with_steps(ingest(), use_case), with_steps(training(), use_case, *gate)


for declared in chosen(Settings.load().use_cases):
    dags_of(declared, timedelta(seconds=Settings.load().ingest_every))
messages()
retention()
ledgers()
