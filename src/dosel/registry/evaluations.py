"""What the gate judges: held-out rows, and a version's answers to them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dosel.registry.intervals import Classes
from dosel.registry.looks import Look


@dataclass(frozen=True)
class ModelEvaluation:
    """A version, evaluated on the held-out rows.

    Attributes:
        predicted: class codes, shape (rows,); None if the version could not be loaded or failed.
        failure: the reason, if `predicted` is None.
        split: version of the split that the model was trained with.
        answered: probabilities by class code for the use case's example, computed as serving computes them.
        recorded: the same, as the training recorded them.
        latency_ms: median time of a prediction for one row.
        backend_tags: tags that name the backend, after a parity check on all held-out rows.
    """

    version: int
    predicted: Classes | None
    failure: str = ""
    split: str | None = None
    answered: Mapping[int, float] | None = None
    recorded: Mapping[int, float] | None = None
    latency_ms: float | None = None
    backend_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedRows:
    """The held-out rows on which versions are judged.

    Attributes:
        truth: their classes, shape (rows,).
        split: version of the split that holds them out now.
        look: the look that this is at the holdout; None means the first one.
        other_splits: other splits, whose versions were trained on none of these rows either.
        groups: the rows' values of each declared group, shape (rows,); "" where it is missing.
    """

    truth: Classes
    split: str
    look: Look | None = None
    other_splits: Collection[str] = ()
    groups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
