"""Logs a search to MLflow as autologging logs scikit-learn's GridSearchCV, under the same names.

Autologging itself does not work here: it patches scikit-learn's classes, which a subclass with its own `fit` bypasses,
and it writes child runs only after the search.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support, roc_auc_score
from sklearn.utils import estimator_html_repr

from dosel.training.search import AnySearch

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Results:
    """A finished search: metrics still to be logged, and the best candidate's parameters, already logged."""

    metrics: list[Metric]
    params: dict[str, str]


def settings(client: MlflowClient, run_id: str, search: AnySearch) -> dict[str, str]:
    """Log the search's parameters and class, before the search; return the parameters."""
    params = params_of(search, deep=False)
    client.log_batch(run_id, params=params, tags=class_of(search))
    return {param.key: param.value for param in params}


def results(
    client: MlflowClient,
    run_id: str,
    search: AnySearch,
    figures: Mapping[str, float],
    write_later: Callable[[Callable[[], object]], None],
) -> Results:
    """Log the best candidate and `cv_results_`, after the search; give its score and its metrics on the training rows.

    Args:
        figures: the metrics on the training rows.
        write_later: calls what uploads a file, in another thread.
    """
    now = get_current_time_millis()
    figures = {"best_cv_score": float(search.best_score_), **figures}
    best = {f"best_{name}": str(value) for name, value in search.best_params_.items()}
    metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
    client.log_batch(run_id, params=[Param(name, value) for name, value in best.items()])
    table = io.StringIO()
    pd.DataFrame(search.cv_results_).to_csv(table, index=False)
    page = f"<!DOCTYPE html>\n<meta charset='utf-8'>\n{estimator_html_repr(search)}"
    write_later(partial(client.log_text, run_id, table.getvalue(), "cv_results.csv"))
    write_later(partial(client.log_text, run_id, page, "estimator.html"))
    return Results(metrics, best)


def training_metrics(search: AnySearch, features: pd.DataFrame, truth: Classes) -> tuple[Classes, dict[str, float]]:
    """The best model's predictions for the training rows, shape (rows,), and the metrics that autologging logs."""
    model = search.best_estimator_
    probabilities = model.predict_proba(features)
    # Equal to scikit-learn's predict, without running every tree a second time.
    predicted = model.classes_.take(probabilities.argmax(axis=1))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
    accuracy = float(accuracy_score(truth, predicted))
    figures = {
        "training_precision_score": float(precision),
        "training_recall_score": float(recall),
        "training_f1_score": float(f1),
        "training_accuracy_score": accuracy,
        "training_log_loss": float(log_loss(truth, probabilities, labels=model.classes_)),
        "training_roc_auc": float(_area(truth, probabilities)),
        "training_score": accuracy if search.scoring == "accuracy" else float(search.score(features, truth)),
    }
    return predicted, figures


def params_of(estimator: Any, deep: bool) -> list[Param]:
    """Parameters as MLflow stores them: text of limited length."""
    return [Param(name, str(value)[:MAX_PARAM_VAL_LENGTH]) for name, value in estimator.get_params(deep).items()]


def class_of(estimator: Any) -> list[RunTag]:
    kind = type(estimator)
    return [RunTag("estimator_name", kind.__name__), RunTag("estimator_class", f"{kind.__module__}.{kind.__name__}")]


def _area(truth: Classes, probabilities: npt.NDArray[np.float64]) -> float:
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(roc_auc_score(truth, scores, average="weighted", multi_class="ovo"))
