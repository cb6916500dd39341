"""The use cases this platform serves. A new one is a file in this folder and a line in `ALL`."""

from dosel.errors import UnknownUseCase
from dosel.usecases.base import (
    Candidate,
    Category,
    Choice,
    Feature,
    Gate,
    Metric,
    Number,
    Scaling,
    Split,
    StrategyName,
    Target,
    UseCase,
)
from dosel.usecases.covertype import COVERTYPE

ALL: tuple[UseCase, ...] = (COVERTYPE,)

DEFAULT: UseCase = COVERTYPE
"""Which use case the bare `POST /predict` of older clients means."""

__all__ = [
    "ALL",
    "DEFAULT",
    "Candidate",
    "Category",
    "Choice",
    "Feature",
    "Gate",
    "Metric",
    "Number",
    "Scaling",
    "Split",
    "StrategyName",
    "Target",
    "UseCase",
    "named",
    "of_model",
]


def named(name: str) -> UseCase:
    """The use case of that name.

    Raises:
        UnknownUseCase: none is declared; the message lists those that are.
    """
    for use_case in ALL:
        if use_case.name == name:
            return use_case
    raise UnknownUseCase(f"no use case {name!r}; there are: {', '.join(u.name for u in ALL)}")


def of_model(name: str) -> UseCase:
    """The use case whose registered model is called so, or which is called so itself.

    Raises:
        UnknownUseCase: none is declared; the message lists the models.
    """
    for use_case in ALL:
        if name in (use_case.model_name, use_case.name):
            return use_case
    raise UnknownUseCase(f"no model {name!r}; there are: {', '.join(u.model_name for u in ALL)}")
