"""Compares the families of a training in one MLflow run."""

from collections.abc import Mapping

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import load_dict

from dosel.model.facts import HOLDOUT, current_names
from dosel.training.evaluation import confusion_figure
from dosel.usecases import UseCase

COUNTS = "evaluation/confusion_matrix.json"
"""Artifact of a family's run: its confusion matrix."""

SCORE = "best_cv_score"
SHOWN = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro")


def compare(client: MlflowClient, use_case: UseCase, run_id: str, runs: Mapping[str, str]) -> tuple[str, float]:
    """Log the comparison to the open run; return the family with the best cross-validation score, and its figure.

    The figure is the gate's metric on the held-out rows.

    Args:
        runs: the id of each family's finished run.
    """
    finished = {family: client.get_run(of) for family, of in runs.items()}
    scores = {family: run.data.metrics[SCORE] for family, run in finished.items()}
    best = max(scores, key=scores.__getitem__)
    tests = {
        family: {name: v for name, v in current_names(run.data.metrics).items() if name.startswith(HOLDOUT)}
        for family, run in finished.items()
    }
    figure_of_best = tests[best][f"{HOLDOUT}{use_case.gate.metric}"]
    # The winner's metrics have no prefix, so that trainings can be compared over time.
    mlflow.log_metrics({**tests[best], SCORE: scores[best]})
    if len(runs) == 1:
        # The family's own run has all there is to log.
        return best, figure_of_best
    for family, figures in tests.items():
        mlflow.log_metrics({f"{family}_{SCORE}": scores[family]} | {f"{family}_{n}": v for n, v in figures.items()})
        counts = load_dict(f"{finished[family].info.artifact_uri}/{COUNTS}")["counts"]
        figure = confusion_figure(use_case.target, np.array(counts), f"{family}, held-out rows")
        mlflow.log_figure(figure, f"comparison/{family}_confusion_matrix.png")
    columns = ["family", f"folds: {use_case.gate.metric}", *(f"holdout: {name}" for name in SHOWN), "run"]
    ordered = sorted(scores, key=scores.__getitem__, reverse=True)
    lines = [
        [family, f"{scores[family]:.4f}", *(f"{tests[family][f'{HOLDOUT}{name}']:.4f}" for name in SHOWN), runs[family]]
        for family in ordered
    ]
    table = [columns, ["---"] * len(columns), *lines]
    mlflow.log_text("\n".join(f"| {' | '.join(line)} |" for line in table) + "\n", "comparison/families.md")
    note = f"{best} has the best cross-validation score and becomes the challenger."
    client.set_tag(run_id, "mlflow.note.content", note)
    return best, figure_of_best
