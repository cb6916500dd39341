"""The use cases this platform serves: each file of this folder declares one. A new one is a new file."""

from importlib import import_module
from pkgutil import iter_modules

from dosel.errors import UnknownUseCase
from dosel.usecases.declaration import (
    DataApiRows,
    Family,
    Gate,
    GeneratedRows,
    Imputer,
    LakeRows,
    Metric,
    PackageRows,
    Preprocessing,
    Range,
    RowsFrom,
    Search,
    SearchKind,
    Space,
    Split,
    StrategyName,
    UseCase,
)
from dosel.usecases.features import Bins, Category, Choice, Feature, Number, Scaling, Target, as_number

__all__ = [
    "ALL",
    "DEFAULT",
    "Bins",
    "Category",
    "Choice",
    "DataApiRows",
    "Family",
    "Feature",
    "Gate",
    "GeneratedRows",
    "Imputer",
    "LakeRows",
    "Metric",
    "Number",
    "PackageRows",
    "Preprocessing",
    "Range",
    "RowsFrom",
    "Scaling",
    "Search",
    "SearchKind",
    "Space",
    "Split",
    "StrategyName",
    "Target",
    "UseCase",
    "as_number",
    "named",
    "of_model",
]


def _declared() -> tuple[UseCase, ...]:
    """What the modules of this folder declare, in the order of their names."""
    modules = [
        import_module(f"{__name__}.{found.name}")
        for found in iter_modules(__path__)
        if found.name not in ("declaration", "features")
    ]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, UseCase))


def _the_default(declared: tuple[UseCase, ...]) -> UseCase:
    marked = [use_case for use_case in declared if use_case.default]
    if len(marked) != 1:
        names = ", ".join(use_case.name for use_case in marked) or "none"
        raise TypeError(f"one use case is to be marked as the default; these are: {names}")
    return marked[0]


ALL: tuple[UseCase, ...] = _declared()

DEFAULT: UseCase = _the_default(ALL)
"""Which use case the bare `POST /predict` of older clients means."""


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
