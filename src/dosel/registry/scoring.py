"""What the gate looks at: a version, loaded as serving loads it, on the held-out rows."""

import json
import statistics
import time
from typing import Any

import numpy as np
import pandas as pd

from dosel.errors import UntrustedModel
from dosel.model import bundle, tags
from dosel.model.predictor import Predictor
from dosel.registry.gate import ModelEvaluation
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.usecases import UseCase

TIMED_ANSWERS = 30


def evaluate_version(
    registry: Registry, use_case: UseCase, version: ModelVersion, features: pd.DataFrame
) -> ModelEvaluation:
    """What a version shows; that it cannot be loaded or fails is shown, too.

    Args:
        features: the held-out rows, canonical.

    Raises:
        RegistryError: MLflow cannot be reached or refuses, so that nothing is known of the model.
    """
    recorded = version.tags.get(tags.EXAMPLE_ANSWER)
    known: dict[str, Any] = {
        "split": version.tags.get(tags.SPLIT_VERSION),
        "recorded": {int(code): p for code, p in json.loads(recorded).items()} if recorded else None,
    }
    try:
        with registry.files(version) as folder:
            loaded = bundle.read(folder)
    except UntrustedModel as error:
        return ModelEvaluation(version.version, None, str(error), **known)
    try:
        predictor = Predictor(use_case, loaded.estimator, loaded.backend.onnx, loaded.backend.fallback_reason)
        [answer] = predictor.predict([use_case.example])
        codes = {label: code for code, label in use_case.target.labels.items()}
        known["answered"] = {codes[label]: p for label, p in answer.probabilities.items()}
        known["latency_ms"] = _latency_ms(predictor, use_case)
        predicted = np.asarray(loaded.estimator.predict(features), dtype=np.int64)
        known["backend_tags"] = backend_tags(predictor, features)
    except Exception as error:  # noqa: BLE001  a model may fail in any way; whichever it is, it does not enter
        return ModelEvaluation(version.version, None, f"it fails when asked: {type(error).__name__}: {error}", **known)
    return ModelEvaluation(version.version, predicted, **known)


def backend_tags(predictor: Predictor, features: pd.DataFrame) -> dict[str, str]:
    """What is to answer, as tags of the run, after a proof on all held-out rows; serving heeds them."""
    proof = predictor.check_parity(features)
    words = f"held-out rows: {proof}" if proof else predictor.fallback_reason
    return {tags.BACKEND: predictor.backend, tags.BACKEND_REASON: words}


def _latency_ms(predictor: Predictor, use_case: UseCase) -> float:
    times = []
    for _ in range(TIMED_ANSWERS):
        start = time.perf_counter()
        predictor.predict([use_case.example])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
