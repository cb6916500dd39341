"""Two DAGs a use case: `…_ingest` pulls what is due, `…_train` starts when that changed the clean rows.

Only schedule and wiring stand here. The heavy imports are inside the tasks, since Airflow reads this file
again before each of them. What passes between tasks is references: a run's id, a version's number.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dosel.settings import Settings
from dosel.usecases import ALL, UseCase, named

if TYPE_CHECKING:
    from dosel.pipeline import Pipeline

TRAINING_POOL = "training"
"""One slot for the whole installation, made at start: one training at a time has the machine to itself."""

BY_ITSELF: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "is_paused_upon_creation": False,
    "default_args": {
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=2),
    },
}
"""Every DAG runs without being switched on, one run at a time, and tries again."""


def opened(use_case_name: str) -> "Pipeline":
    from dosel.pipeline import Pipeline

    return Pipeline(named(use_case_name), Settings.load())


@task(execution_timeout=timedelta(minutes=30))
def pull(use_case_name: str) -> list[int]:
    """Stores what the source has; skipped when that is nothing new. Gives the batches' ids."""
    pipeline = opened(use_case_name)
    batches = pipeline.ingest(pipeline.source())
    if not batches:
        raise AirflowSkipException("nothing new: the source is done, or its next batch is not due")
    return [batch.id for batch in batches]


@task(execution_timeout=timedelta(minutes=30))
def process(use_case_name: str) -> str | None:
    """Describes the sets a training works on, and keeps them in the lake; gives the MLflow run's id."""
    return opened(use_case_name).process()


@task(execution_timeout=timedelta(minutes=5))
def announce(use_case_name: str) -> None:
    """Updates the asset that starts the training; skipped when every row was trained on and judged."""
    if not opened(use_case_name).training_due():
        raise AirflowSkipException("every clean row was trained on")


@task(pool=TRAINING_POOL, execution_timeout=timedelta(hours=12))
def train(use_case_name: str) -> str:
    """Searches and evaluates; gives the MLflow run's id."""
    return opened(use_case_name).train()


@task(execution_timeout=timedelta(minutes=10))
def register(use_case_name: str, mlflow_run: str) -> int:
    """Gives the registered version's number."""
    return opened(use_case_name).register(mlflow_run)


@task(execution_timeout=timedelta(minutes=30))
def challenge(use_case_name: str, version: int) -> bool:
    """Lets the version into Production if it earned it; gives whether it did."""
    context = get_current_context()
    actor = f"{context['dag'].dag_id} {context['run_id']}"
    return opened(use_case_name).challenge(version, actor).promoted


@task(execution_timeout=timedelta(minutes=5))
def warm_up() -> None:
    """Has the API look at the registry now, rather than at its next poll."""
    from dosel.client import Client

    Client(Settings.load().api_url).warm_up()


def dags_of(use_case: UseCase, ingest_every: timedelta) -> tuple[DAG, DAG]:
    clean_rows = Asset(name=f"{use_case.name}_clean", uri=f"dosel://warehouse/{use_case.name}_clean")
    tags = ["dosel", use_case.name]
    by_itself = BY_ITSELF | {"default_args": BY_ITSELF["default_args"] | {"priority_weight": use_case.priority}}

    @dag(
        dag_id=f"{use_case.name}_ingest",
        schedule=ingest_every,
        tags=tags,
        description=f"Pulls what is due of {use_case.title} into the warehouse",
        doc_md=f"Pulls the batches of **{use_case.title}** that are due into the warehouse.",
        **by_itself,
    )
    def ingest() -> None:
        announced = announce.override(outlets=[clean_rows], trigger_rule="none_failed")(use_case.name)
        pulled = pull(use_case.name)
        if use_case.processed:
            pulled >> process.override(trigger_rule="none_failed")(use_case.name) >> announced
        else:
            pulled >> announced

    @dag(
        dag_id=f"{use_case.name}_train",
        schedule=[clean_rows],
        tags=tags,
        description=f"Searches, evaluates and lets the winner for {use_case.title} into Production if it earned it",
        doc_md=f"Trains on the clean rows of **{use_case.title}**; the winner enters Production if it earned it.",
        **by_itself,
    )
    def training() -> None:
        version = register(use_case.name, train(use_case.name))
        challenge(use_case.name, version) >> warm_up()

    return ingest(), training()


for declared in ALL:
    dags_of(declared, timedelta(seconds=Settings.load().ingest_every))
