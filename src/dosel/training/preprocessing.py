"""The preprocessing a use case declares, as the first step of its model's pipeline."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from dosel.usecases import Scaling, UseCase

CLASSIFIER = "classifier"
"""Name of the pipeline's last step; a candidate's parameters are searched as `classifier__…`."""


def pipeline(use_case: UseCase, classifier: Any) -> Pipeline:
    """Filling, encoding and scaling, then `classifier`; takes the canonical frame of features.

    Categories come from the declaration, not from the rows at hand, so the width never depends on a sample.
    """
    scaled: dict[Scaling, list[str]] = {
        by: [number.name for number in use_case.numbers if number.scaling == by] for by in ("minmax", "standard")
    }
    steps: list[tuple[str, Any, list[str]]] = [
        (use_case.preprocessing.encoder, _encoder(use_case), [category.name for category in use_case.categories])
    ]
    if use_case.preprocessing.imputer == "none":
        steps += [("minmax", MinMaxScaler(), scaled["minmax"]), ("standard", StandardScaler(), scaled["standard"])]
    else:
        names = [number.name for number in use_case.numbers]
        # By their places: what an imputer gives has no names any more.
        places = {by: [names.index(name) for name in of] for by, of in scaled.items()}
        scaling = ColumnTransformer(
            [("minmax", MinMaxScaler(), places["minmax"]), ("standard", StandardScaler(), places["standard"])]
        )
        steps.append(("numbers", Pipeline([("impute", _imputer(use_case)), ("scale", scaling)]), names))
    return Pipeline([("preprocess", ColumnTransformer(steps)), (CLASSIFIER, classifier)])


def _encoder(use_case: UseCase) -> Any:
    known = [list(category.values) for category in use_case.categories]
    if use_case.preprocessing.encoder == "ordinal":
        return OrdinalEncoder(categories=known, handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.float32)
    return OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False, dtype=np.float32)


def _imputer(use_case: UseCase) -> Any:
    if use_case.preprocessing.imputer == "median":
        from sklearn.impute import SimpleImputer

        return SimpleImputer(strategy="median", keep_empty_features=True)
    # scikit-learn has it importable only for those who say that they know it may change.
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(random_state=0, skip_complete=True)
