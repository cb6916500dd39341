"""The use cases this platform serves: each file of this folder declares one. A new one is a new file."""

from dosel.errors import UnknownUseCase
from dosel.usecases.declaration import (
    SURPLUS,
    DataApiRows,
    Family,
    Gate,
    GeneratedRows,
    LakeRows,
    Metric,
    PackageRows,
    Preprocessing,
    Range,
    Search,
    Space,
    Split,
    StrategyName,
    UseCase,
)
from dosel.usecases.features import Bins, Category, Choice, Feature, Number, Scaling, Target, as_number, plain_name
from dosel.usecases.reading import RefusedFile, read_declarations

__all__ = [
    "ALL",
    "DEFAULT",
    "REFUSED",
    "SURPLUS",
    "Bins",
    "Category",
    "Choice",
    "DataApiRows",
    "Family",
    "Feature",
    "Gate",
    "GeneratedRows",
    "LakeRows",
    "Metric",
    "Number",
    "PackageRows",
    "Preprocessing",
    "Range",
    "RefusedFile",
    "Scaling",
    "Search",
    "Space",
    "Split",
    "StrategyName",
    "Target",
    "UseCase",
    "as_number",
    "named",
    "of_model",
    "plain_name",
]


_CODE = frozenset({"check", "declaration", "features", "reading"})
"""The modules of this folder that declare nothing."""

ALL, REFUSED = read_declarations(__name__, __path__, _CODE)
"""The use cases that can be used, and the files that cannot: `dosel check` says why."""

DEFAULT: UseCase | None = next((use_case for use_case in ALL if use_case.default), None)
"""The use case of the bare `POST /predict`, which older clients send; None if its file is refused or none is marked."""


def named(name: str) -> UseCase:
    """The use case of that name.

    Raises:
        UnknownUseCase: none is declared; the message lists those that are.
    """
    for use_case in ALL:
        if use_case.name == name:
            return use_case
    raise UnknownUseCase(f"no use case {name!r}; there are: {', '.join(u.name for u in ALL)}{_refused()}")


def of_model(name: str) -> UseCase:
    """The use case whose registered model is called so, or which is called so itself.

    Raises:
        UnknownUseCase: none is declared; the message lists the models.
    """
    for use_case in ALL:
        if name in (use_case.model_name, use_case.name):
            return use_case
    raise UnknownUseCase(f"no model {name!r}; there are: {', '.join(u.model_name for u in ALL)}{_refused()}")


def _refused() -> str:
    files = ", ".join(refused.file for refused in REFUSED)
    return f". Refused: {files} (`dosel check` says why)" if files else ""
