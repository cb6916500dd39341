"""Metrics and confusion matrices of a model on held-out rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, balanced_accuracy_score, classification_report, confusion_matrix

from dosel.usecases import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on one set of rows.

    Attributes:
        metrics: accuracy, balanced_accuracy, and precision, recall and f1, each _macro and _weighted; 0 to 1.
        report: precision, recall, f1-score and support by class, and their averages.
        confusion: counts, shape (classes, classes): true class by row, predicted class by column.
    """

    metrics: dict[str, float]
    report: dict[str, Any]
    confusion: npt.NDArray[np.int64]


def evaluate(target: Target, truth: Classes, predicted: Classes) -> Evaluation:
    """Compare predictions with the truth: class codes, both of shape (rows,).

    A metric that would divide by zero, for a class that occurs in neither, is 0.
    """
    return evaluate_counts(target, confusion_counts(target, truth, predicted))


def evaluate_counts(target: Target, counts: npt.NDArray[np.int64]) -> Evaluation:
    """As `evaluate`, from a confusion matrix of shape (classes, classes) in the target's order."""
    codes, names = list(target.labels), list(target.labels.values())
    # One row for each kind of rows, weighted by their number.
    true, found = np.nonzero(counts)
    rows = {"y_true": np.array(codes)[true], "y_pred": np.array(codes)[found], "sample_weight": counts[true, found]}
    report = classification_report(**rows, labels=codes, target_names=names, output_dict=True, zero_division=0)
    metrics = {
        "accuracy": float(accuracy_score(**rows)),
        "balanced_accuracy": float(balanced_accuracy_score(**rows)),
    }
    for average in ("macro", "weighted"):
        for name, title in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            metrics[f"{name}_{average}"] = float(report[f"{average} avg"][title])
    return Evaluation(metrics, report, counts)


def confusion_counts(target: Target, truth: Classes, predicted: Classes) -> npt.NDArray[np.int64]:
    """The confusion matrix: counts, shape (classes, classes), in the target's order."""
    matrix: npt.NDArray[np.int64] = confusion_matrix(truth, predicted, labels=list(target.labels))
    return matrix


def confusion_figure(target: Target, confusion: npt.NDArray[np.int64], rows: str = "held-out rows") -> "Figure":
    """Draw the confusion matrix: colours are shares of the true class, numbers are counts.

    Args:
        rows: description of the rows, for the title.
    """
    from matplotlib.figure import Figure

    names = list(target.labels.values())
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # The space for the labels is computed here: a layout engine would draw everything twice.
    room = 0.7 + 0.09 * max(map(len, names))
    width, height = len(names) + room + 1.5, 0.8 * len(names) + room + 0.5
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((room / width, room / height, len(names) / width, 0.8 * len(names) / height))
    image = axes.imshow(share, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("True")
    axes.set_title(f"{target.title}: {rows}")
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)
    beside = figure.add_axes(((room + len(names) + 0.2) / width, room / height, 0.2 / width, 0.8 * len(names) / height))
    figure.colorbar(image, cax=beside, label="Share of the true class")
    return figure
