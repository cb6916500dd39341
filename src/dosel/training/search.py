"""scikit-learn's grid search, told as it goes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import joblib
from sklearn import model_selection

from dosel.training.preprocessing import CLASSIFIER


@dataclass(frozen=True)
class Scored:
    """A candidate after its folds. `metrics` are those of `cv_results_`: scores and times in seconds."""

    number: int
    of: int
    params: Mapping[str, Any]
    score: float
    best: float
    metrics: Mapping[str, float]


Watcher = Callable[[Scored], None]


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """Scores candidates a few at a time, as many as there are cores, and reports each.

    The candidates, their order and their scores are scikit-learn's own; `fit` is inherited, since
    MLflow's autologging patches that of the parent.
    """

    watcher: Watcher | None = None

    def _run_search(self, evaluate_candidates: Callable[[Any], Mapping[str, Any]]) -> None:
        candidates = list(model_selection.ParameterGrid(self.param_grid))
        step = joblib.effective_n_jobs(self.n_jobs)
        for start in range(0, len(candidates), step):
            results = evaluate_candidates(candidates[start : start + step])
            scores = results["mean_test_score"]
            for i in range(start, min(start + step, len(candidates))):
                if self.watcher is not None:
                    self.watcher(
                        Scored(
                            number=i + 1,
                            of=len(candidates),
                            params=plain(candidates[i]),
                            score=float(scores[i]),
                            best=float(max(scores[: i + 1])),
                            metrics=_metrics(results, i),
                        )
                    )


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the names the declaration gives them."""
    return {name.removeprefix(f"{CLASSIFIER}__"): value for name, value in params.items()}


def _metrics(results: Mapping[str, Any], i: int) -> dict[str, float]:
    """Everything measured about a candidate; its rank only means something once all are in."""
    measured = ("mean_", "std_", "split")
    return {name: float(values[i]) for name, values in results.items() if name.startswith(measured)}
