"""Evaluates versions on the held-out rows, loaded as serving loads them."""

import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from dosel.errors import UntrustedModel
from dosel.model import bundle, tags
from dosel.model.parity import ParityResult
from dosel.model.predictor import Predictor
from dosel.registry.attested import read_json
from dosel.registry.evaluations import ModelEvaluation
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.usecases import UseCase

TIMED_ANSWERS = 30


def evaluate_version(
    registry: Registry, use_case: UseCase, version: ModelVersion, parts: Iterable[pd.DataFrame]
) -> ModelEvaluation:
    """Evaluate a version; if it cannot be loaded or fails, the evaluation has the reason.

    Args:
        parts: the held-out rows in canonical types, part by part.

    Raises:
        RegistryError: MLflow cannot be reached, or refused.
    """
    known: dict[str, Any] = {"split": version.tags.get(tags.SPLIT_VERSION), "recorded": _recorded_answer(version)}
    try:
        with registry.files(version) as folder:
            loaded = bundle.read(folder)
    except UntrustedModel as error:
        return ModelEvaluation(version.version, None, str(error), **known)
    try:
        predictor = Predictor(use_case, loaded.estimator, loaded.backend.onnx, loaded.backend.fallback_reason)
        # Without the rounding that the API applies to answers of a closed use case.
        [answered] = predictor.probabilities(predictor.matrix([use_case.example])).tolist()
        known["answered"] = dict(zip(predictor.classes, answered, strict=True))
        known["latency_ms"] = _latency_ms(predictor, use_case)
        predicted, parity = [np.zeros(0, np.int64)], None
        for features in parts:
            predicted.append(np.asarray(loaded.estimator.predict(features), dtype=np.int64))
            if (found := predictor.check_parity(features)) is not None:
                parity = found.with_more(parity)
        known["backend_tags"] = backend_tags(predictor, parity)
    except Exception as error:  # noqa: BLE001  a model may fail in any way, and none of them may enter Production
        return ModelEvaluation(version.version, None, f"it fails: {type(error).__name__}: {error}", **known)
    return ModelEvaluation(version.version, np.concatenate(predicted), **known)


def backend_tags(predictor: Predictor, parity: ParityResult | None) -> dict[str, str]:
    """The backend that answers after the parity check on all held-out rows, as tags of the run; serving reads them."""
    words = f"held-out rows: {parity}" if parity else predictor.fallback_reason
    return {tags.BACKEND: predictor.backend, tags.BACKEND_REASON: words}


def _recorded_answer(version: ModelVersion) -> dict[int, float] | None:
    """The training's answer to the example; None without one, or if the text of an old version cannot be read."""
    found = read_json(version.tags.get(tags.EXAMPLE_ANSWER))
    try:
        return {int(code): float(share) for code, share in found.items()} if found else None
    except (AttributeError, TypeError, ValueError):
        return None


def _latency_ms(predictor: Predictor, use_case: UseCase) -> float:
    times = []
    for _ in range(TIMED_ANSWERS):
        start = time.perf_counter()
        predictor.predict([use_case.example])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
