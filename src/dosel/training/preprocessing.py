"""The preprocessing a use case declares, as the first step of its model's pipeline."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from dosel.usecases import Scaling, UseCase

CLASSIFIER = "classifier"
"""Name of the pipeline's last step; a candidate's parameters are searched as `classifier__…`."""

ONE_HOT = "one_hot"
"""Name of the step that encodes categories."""


def pipeline(use_case: UseCase, classifier: Any) -> Pipeline:
    """A pipeline that imputes, encodes and scales, then classifies; it takes the canonical frame of features.

    Categories come from the declaration, not from the rows at hand, so the width never depends on a sample.
    """
    scaled: dict[Scaling, list[str]] = {
        by: [number.name for number in use_case.numbers if number.scaling == by] for by in ("minmax", "standard")
    }
    steps: list[tuple[str, Any, list[str]]] = [
        (ONE_HOT, _encoder(use_case), [category.name for category in use_case.categories])
    ]
    if use_case.preprocessing.imputer == "none":
        steps += [("minmax", MinMaxScaler(), scaled["minmax"]), ("standard", StandardScaler(), scaled["standard"])]
    else:
        names = [number.name for number in use_case.numbers]
        # By position: an imputer's output has no column names.
        places = {by: [names.index(name) for name in of] for by, of in scaled.items()}
        scaling = ColumnTransformer(
            [("minmax", MinMaxScaler(), places["minmax"]), ("standard", StandardScaler(), places["standard"])]
        )
        steps.append(("numbers", Pipeline([("impute", _imputer()), ("scale", scaling)]), names))
    return Pipeline([("preprocess", ColumnTransformer(steps)), (CLASSIFIER, classifier)])


def _encoder(use_case: UseCase) -> OneHotEncoder:
    known = [list(category.values) for category in use_case.categories]
    return OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False, dtype=np.float32)


def _imputer() -> Any:
    # scikit-learn makes it importable only after this import, since it is experimental there.
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(random_state=0, skip_complete=True)
