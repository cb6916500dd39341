"""The use cases this platform serves: each file of this folder declares one. A new one is a new file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dosel.errors import UnknownUseCase
from dosel.usecases.declaration import SURPLUS as SURPLUS
from dosel.usecases.declaration import Approval as Approval
from dosel.usecases.declaration import DataApiRows as DataApiRows
from dosel.usecases.declaration import Family as Family
from dosel.usecases.declaration import FileRows as FileRows
from dosel.usecases.declaration import Gate as Gate
from dosel.usecases.declaration import GeneratedRows as GeneratedRows
from dosel.usecases.declaration import HarmAction as HarmAction
from dosel.usecases.declaration import LakeRows as LakeRows
from dosel.usecases.declaration import Metric as Metric
from dosel.usecases.declaration import Monitor as Monitor
from dosel.usecases.declaration import PackageRows as PackageRows
from dosel.usecases.declaration import Preprocessing as Preprocessing
from dosel.usecases.declaration import Range as Range
from dosel.usecases.declaration import Search as Search
from dosel.usecases.declaration import Shadow as Shadow
from dosel.usecases.declaration import Space as Space
from dosel.usecases.declaration import Split as Split
from dosel.usecases.declaration import StrategyName as StrategyName
from dosel.usecases.declaration import UseCase as UseCase
from dosel.usecases.features import Bins as Bins
from dosel.usecases.features import Category as Category
from dosel.usecases.features import Choice as Choice
from dosel.usecases.features import Feature as Feature
from dosel.usecases.features import Number as Number
from dosel.usecases.features import Scaling as Scaling
from dosel.usecases.features import Target as Target
from dosel.usecases.features import as_number as as_number
from dosel.usecases.features import plain_name as plain_name
from dosel.usecases.reading import RefusedFile as RefusedFile
from dosel.usecases.reading import read_declarations

if TYPE_CHECKING:
    from dosel.settings import Settings

_CODE = frozenset({"check", "declaration", "features", "reading"})
"""The modules of this folder that declare nothing."""

ALL, REFUSED = read_declarations(__name__, __path__, _CODE)
"""The use cases that can be used, and the files that cannot: `dosel check` says why."""

DEFAULT: UseCase | None = next((use_case for use_case in ALL if use_case.default), None)
"""The use case of the bare `POST /predict`, which older clients send; None if its file is refused or none is marked."""


def named(name: str, among: Sequence[UseCase] = ALL) -> UseCase:
    """The use case of that name, among all or among those that a process serves.

    Raises:
        UnknownUseCase: there is none; the message lists those that there are.
    """
    for use_case in among:
        if use_case.name == name:
            return use_case
    more = _refused() if among is ALL else ""
    raise UnknownUseCase(f"no use case {name!r}; there are: {', '.join(u.name for u in among)}{more}")


def chosen(names: str) -> tuple[UseCase, ...]:
    """The use cases to run.

    Args:
        names: separated by commas, as in `DOSEL_USE_CASES`; empty means all.

    Raises:
        UnknownUseCase: one is not declared; the message lists those that are.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return tuple(map(named, dict.fromkeys(wanted))) or ALL


def adapted(use_case: UseCase, settings: "Settings") -> UseCase:
    """The use case as an installation's settings change it."""
    use_case = use_case.with_trials(settings.trials)
    return use_case.with_shadow() if settings.shadow else use_case


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
