"""Two DAGs for each use case: `…_ingest` stores new batches, `…_train` starts when the clean rows changed.

Three more: `dosel_messages` delivers the messages that the tasks could not, `dosel_retention` deletes old entries of
the prediction log once a day, and `dosel_ledgers` verifies the ledgers and signs their head once an hour.

This file has only schedules and wiring. Heavy imports are inside the tasks, since Airflow parses this file before each
task. Tasks pass references to each other: a run's id, a version's number.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dosel.settings import Settings
from dosel.usecases import UseCase, chosen, named

if TYPE_CHECKING:
    from dosel.pipeline import Pipeline

TRAINING_POOL = "training"
"""Airflow pool with `DOSEL_TRAININGS` slots, set at start: as many trainings at a time in the whole installation."""

MESSAGES_EVERY = timedelta(minutes=5)


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


def opened(use_case_name: str) -> "Pipeline":
    from dosel.pipeline import Pipeline

    return Pipeline(named(use_case_name), Settings.load())


@task(execution_timeout=timedelta(minutes=30))
def pull(use_case_name: str) -> list[int]:
    """Store the source's new batches and return their ids; skipped if there are none."""
    pipeline = opened(use_case_name)
    batches = pipeline.ingest(pipeline.source())
    if not batches:
        raise AirflowSkipException("no new batch: the source has ended, or its next batch is not due")
    return [batch.id for batch in batches]


@task(execution_timeout=timedelta(minutes=30))
def score(use_case_name: str) -> list[int]:
    """Score the version in Production on the new batches before a model trains on them, and test for harm.

    Returns the batches' ids.
    """
    use_case = named(use_case_name)
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger

    # Before the first promotion there is nothing to score, and importing the pipeline takes seconds.
    if PromotionLedger(connect(Settings.load().warehouse_url)).last(use_case.model_name) is None:
        return []
    return opened(use_case_name).score()


@task(execution_timeout=timedelta(minutes=30))
def process(use_case_name: str) -> str | None:
    """Write the preprocessed rows to the lake, if declared, and return the MLflow run's id."""
    return opened(use_case_name).process()


@task(execution_timeout=timedelta(minutes=5))
def announce(use_case_name: str) -> None:
    """Update the asset that starts the training, with the reason; skipped if no training is due."""
    pipeline = opened(use_case_name)
    if not pipeline.training_due():
        raise AirflowSkipException("a model was already trained on all clean rows")
    context = get_current_context()
    for asset in context["task"].outlets:
        context["outlet_events"][asset].extra = {"reason": pipeline.training_reason()}


@task(pool=TRAINING_POOL, execution_timeout=timedelta(hours=12))
def train(use_case_name: str) -> str:
    """Search and evaluate; return the MLflow run's id."""
    return opened(use_case_name).train()


@task(execution_timeout=timedelta(minutes=10))
def register(use_case_name: str, mlflow_run: str) -> int:
    """Register the models; return the challenger's version number."""
    return opened(use_case_name).register(mlflow_run)


@task(execution_timeout=timedelta(minutes=30))
def challenge(use_case_name: str, version: int) -> bool:
    """Send the challenger to the gate; return whether it was promoted."""
    context = get_current_context()
    actor = f"{context['dag'].dag_id} {context['run_id']}"
    return opened(use_case_name).challenge(version, actor).promoted


@task(execution_timeout=timedelta(minutes=5))
def warm_up(promoted: bool) -> None:
    """Make the API load the promoted version now instead of at its next poll; skipped unless it entered Production."""
    if not promoted:
        raise AirflowSkipException("Production has not changed: the gate refused the version, or it is in shadow")
    from dosel.client import Client

    settings = Settings.load()
    Client(settings.api_url, key=settings.api_key).warm_up()


@task(execution_timeout=timedelta(minutes=5))
def deliver() -> int:
    """Send the messages that are due; return how many were sent."""
    from dosel.db.engine import connect
    from dosel.monitor import delivery

    settings = Settings.load()
    return delivery.deliver(connect(settings.warehouse_url), settings).sent


@dag(
    dag_id="dosel_messages",
    # Without a target there is nothing to deliver: events stay on the page.
    schedule=MESSAGES_EVERY if Settings.load().sends_messages else None,
    tags=["dosel"],
    description="Delivers messages that were not delivered yet",
    doc_md="Delivers the messages that wait: after a failed request, for the end of quiet hours, or for a digest.",
    **DAG_SETTINGS,
)
def messages() -> None:
    deliver()


@task(execution_timeout=timedelta(hours=2))
def prune() -> int:
    """Delete answers that are older than `DOSEL_PREDICTION_DAYS`, with the feedback on them; return how many."""
    from dosel.db.engine import connect
    from dosel.warehouse.retention import prune as delete

    settings = Settings.load()
    return delete(connect(settings.warehouse_url), settings.prediction_days)


@dag(
    dag_id="dosel_retention",
    schedule="0 4 * * *",
    tags=["dosel"],
    description="Deletes old entries of the prediction log",
    **DAG_SETTINGS,
)
def retention() -> None:
    prune()


@task(execution_timeout=timedelta(minutes=30))
def verify() -> int:
    """Check every entry of the ledgers and sign their head; return the number of entries. A wrong one is an event."""
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
    clean_rows = Asset(name=f"{use_case.name}_clean", uri=f"dosel://warehouse/{use_case.name}_clean")
    tags = ["dosel", use_case.name]
    dag_settings = DAG_SETTINGS | {
        "default_args": DAG_SETTINGS["default_args"] | {"priority_weight": use_case.priority}
    }

    @dag(
        dag_id=f"{use_case.name}_ingest",
        schedule=ingest_every,
        tags=tags,
        description=f"Stores new batches of {use_case.title} in the warehouse",
        doc_md=f"Stores new batches of **{use_case.title}** in the warehouse.",
        **dag_settings,
    )
    def ingest() -> None:
        announced = announce.override(outlets=[clean_rows], trigger_rule="none_failed")(use_case.name)
        scored = score.override(trigger_rule="none_failed")(use_case.name)
        pull(use_case.name) >> scored
        if use_case.processed:
            scored >> process.override(trigger_rule="none_failed")(use_case.name) >> announced
        else:
            scored >> announced

    @dag(
        dag_id=f"{use_case.name}_train",
        schedule=[clean_rows],
        tags=tags,
        description=f"Trains models for {use_case.title} and promotes the best one if it passes the gate",
        doc_md=f"Trains models for **{use_case.title}** and promotes the best one if it passes the gate.",
        **dag_settings,
    )
    def training() -> None:
        # What a task returns reaches the next one as its value; Airflow's types know only the reference.
        version = register(use_case.name, train(use_case.name))  # type: ignore[arg-type]
        warm_up(challenge(use_case.name, version))  # type: ignore[arg-type]

    return ingest(), training()


for declared in chosen(Settings.load().use_cases):
    dags_of(declared, timedelta(seconds=Settings.load().ingest_every))
messages()
retention()
ledgers()
