"""The progress of a training, read from MLflow, where candidates' runs appear during the search."""

from dataclasses import dataclass
from datetime import datetime

from dosel.model import tags
from dosel.registry.mlflow_calls import MISSING, PARENT_RUN, RUN_NAME, MlflowCalls, Refused

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


def candidates_since(mlflow: MlflowCalls, experiment: str, since: datetime) -> list[CandidateProgress]:
    """Candidates scored since then, in the order they were tried; empty if there is no such experiment.

    Raises:
        Refused, Unreachable: as every call to MLflow.
    """
    try:
        runs = mlflow.finished_runs(experiment, since, MAX_RUNS)
    except Refused as error:
        if error.code == MISSING:
            return []
        raise
    seen = [
        CandidateProgress(
            run.id,
            run.tags[PARENT_RUN],
            run.tags.get(tags.FAMILY, ""),
            run.tags[tags.CANDIDATE],
            run.tags.get(RUN_NAME, ""),
            run.metrics.get("mean_test_score", float("nan")),
        )
        for run in runs
        if PARENT_RUN in run.tags and tags.CANDIDATE in run.tags
    ]
    return sorted(seen, key=lambda c: (c.search, int(c.position.partition("/")[0] or 0)))
