"""The progress of a training, read from MLflow, where candidates' runs appear during the search."""

from dataclasses import dataclass
from datetime import datetime

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from dosel.model import tags

MAX_RUNS = 1000


@dataclass(frozen=True)
class CandidateProgress:
    """A scored candidate: `position` is like "3/27", `params` one line of text, `score` the mean over the folds."""

    run_id: str
    search: str
    family: str
    position: str
    params: str
    score: float

    @property
    def of(self) -> int:
        """The number of candidates of its search."""
        return int(self.position.partition("/")[2] or 0)


def candidates_since(client: MlflowClient, experiment: str, since: datetime) -> list[CandidateProgress]:
    """Candidates scored since then, in the order they were tried; empty if there is no such experiment."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    runs = client.search_runs(
        [found.experiment_id],
        f"attributes.start_time > {round(since.timestamp() * 1000)} AND attributes.status = 'FINISHED'",
        max_results=MAX_RUNS,
    )
    seen = [
        CandidateProgress(
            run.info.run_id,
            run.data.tags[MLFLOW_PARENT_RUN_ID],
            run.data.tags.get(tags.FAMILY, ""),
            run.data.tags[tags.CANDIDATE],
            run.data.tags.get(MLFLOW_RUN_NAME, ""),
            run.data.metrics.get("mean_test_score", float("nan")),
        )
        for run in runs
        if MLFLOW_PARENT_RUN_ID in run.data.tags and tags.CANDIDATE in run.data.tags
    ]
    return sorted(seen, key=lambda c: (c.search, int(c.position.partition("/")[0] or 0)))
