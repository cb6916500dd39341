"""Examples of answers and errors for each use case's calls in the OpenAPI document, made from its declaration."""

from collections.abc import Iterable
from typing import Any

from app.http.problems import MEDIA_TYPE, Problem
from app.http.validation_errors import FieldError, RowError
from dosel.rows.validation import InvalidValue, Validator
from dosel.usecases import UseCase

RUN_ID = "0f9a4c1de0b94c6c8d3b7a52f1e6c0aa"
VERSION = 3
LIKELY = 0.8
"""The probability of the example's first class; the second has the rest."""

GAIN = 0.5
"""The first feature's contribution to that probability, in the example of an explanation."""


def add_examples(document: dict[str, Any], use_cases: Iterable[UseCase], default: UseCase | None) -> None:
    """Set the examples of the calls that answer rows of a use case."""
    paths = [(use_case, f"/predict/{use_case.name}") for use_case in use_cases]
    if default is not None:
        paths.append((default, "/predict"))
    for use_case, path in paths:
        answer, model = _answer(use_case), _model(use_case)
        _set(document, path, "200", answer | {"model": model})
        _set(document, f"{path}/batch", "200", {"predictions": [answer], "model": model})
        _set(document, f"/explain/{use_case.name}", "200", answer | {"model": model} | _explanation(use_case))
        invalid = _refusal(use_case)
        _set_problem(document, path, invalid)
        _set_problem(document, f"/explain/{use_case.name}", invalid)
        _set_problem(document, f"{path}/batch", InvalidValue(invalid.field, invalid.expected, invalid.got, 1))


def _model(use_case: UseCase) -> dict[str, Any]:
    return {"name": use_case.model_name, "version": VERSION, "run_id": RUN_ID}


def _answer(use_case: UseCase) -> dict[str, Any]:
    (code, label), *others = use_case.target.labels.items()
    probabilities = {label: LIKELY, others[0][1]: round(1 - LIKELY, 10)} | {other: 0.0 for _, other in others[1:]}
    return {"prediction": code, "label": label, "probabilities": probabilities}


def _explanation(use_case: UseCase) -> dict[str, Any]:
    """An explanation in which the first feature has made the class likely."""
    label, position = next(iter(use_case.target.labels.values())), {"x": 1.5, "y": -0.5}
    features = [
        {"feature": f.name, "title": f.title, "value": use_case.example[f.name], "contribution": 0.0, "error": None}
        for f in use_case.features
    ]
    features[0]["contribution"] = GAIN
    contributions = {"label": label, "method": "TreeSHAP", "exact": True, "unit": "probability", "draws": None}
    contributions |= {"base": LIKELY - GAIN, "output": LIKELY, "seconds": 0.01, "features": features}
    found: dict[str, Any] = {"warnings": [], "contributions": contributions}
    if not use_case.expose_training_rows:
        return found | {"near_classes": [{"label": label, "share": 1.0}]}
    point = position | {"label": label}
    near = point | {"distance": 0.41, "prediction": next(iter(use_case.target.labels)), "row": use_case.example}
    return found | {
        "neighbours": [near],
        "projection": {"row": position, "explained": [0.28, 0.19], "sample": [point]},
    }


def _refusal(use_case: UseCase) -> InvalidValue:
    """What the validator says of the example with an invalid value in its first field."""
    feature = use_case.features[0]
    _, errors = Validator(use_case).check_rows([dict(use_case.example) | {feature.name: "?"}])
    [error] = errors[0]
    return error


def _set(document: dict[str, Any], path: str, status: str, example: dict[str, Any]) -> None:
    if path in document["paths"]:
        content = document["paths"][path]["post"]["responses"][status]["content"]
        content["application/json"]["example"] = example


def _set_problem(document: dict[str, Any], path: str, invalid: InvalidValue) -> None:
    if path not in document["paths"]:
        return
    error = FieldError.of(invalid) if invalid.row is None else RowError.of(invalid)
    problem = Problem(title="Unprocessable Entity", status=422, detail=invalid.message, instance=path).model_dump()
    content = document["paths"][path]["post"]["responses"]["422"]["content"]
    content[MEDIA_TYPE]["example"] = problem | {"errors": [error.model_dump()]}
