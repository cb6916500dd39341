"""The preprocessing a use case declares, as the first step of its model's pipeline."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from dosel.usecases import Scaling, UseCase

CLASSIFIER = "classifier"
"""Name of the pipeline's last step; a candidate's parameters are searched as `classifier__…`."""


def pipeline(use_case: UseCase, classifier: Any) -> Pipeline:
    """Encoding and scaling, then `classifier`; takes the canonical frame of features.

    Categories come from the declaration, not from the rows at hand, so the width never depends on a sample.
    """
    encoder = OneHotEncoder(
        categories=[list(category.values) for category in use_case.categories],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )

    def scaled(by: Scaling) -> list[str]:
        return [number.name for number in use_case.numbers if number.scaling == by]

    steps = [
        ("one_hot", encoder, [category.name for category in use_case.categories]),
        ("minmax", MinMaxScaler(), scaled("minmax")),
        ("standard", StandardScaler(), scaled("standard")),
    ]
    return Pipeline([("preprocess", ColumnTransformer(steps)), (CLASSIFIER, classifier)])
