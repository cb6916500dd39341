"""Reads a folder of declarations: each file is checked, and one that fails does not stop the others."""

import traceback
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules

from dosel.usecases import check
from dosel.usecases.declaration import UseCase


@dataclass(frozen=True)
class RefusedFile:
    """A file of the folder whose use cases are not used, and why."""

    file: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{self.file}:", *(f"  {problem}" for problem in self.problems)))


def read_declarations(
    package: str, folders: Iterable[str], skipped: Collection[str]
) -> tuple[tuple[UseCase, ...], tuple[RefusedFile, ...]]:
    """The use cases that the modules of a package declare, in the order of their names, and the files to correct.

    Args:
        folders: where the package's modules are.
        skipped: modules that declare nothing, as those whose name begins with `_`.
    """
    use_cases: list[UseCase] = []
    refused = []
    for name in sorted(module.name for module in iter_modules(folders)):
        if name in skipped or name.startswith("_"):
            continue
        found, problems = _read(f"{package}.{name}", use_cases)
        if problems:
            refused.append(RefusedFile(_file(f"{package}.{name}"), tuple(problems)))
        else:
            use_cases += found
    return tuple(use_cases), tuple(refused)


def problems_of(file: Path, others: Iterable[UseCase]) -> list[str]:
    """The problems of one file that declares a use case, beside others; it need not be in the package's folder."""
    spec = spec_from_file_location(f"_{file.stem}", file)
    if spec is None or spec.loader is None:
        return [f"{file} is no Python file; write a name that ends in .py"]
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        declared = [value for value in vars(module).values() if isinstance(value, UseCase)]
        return [problem for mine in declared for problem in check.problems(mine) + check.clashes(mine, others)]
    except Exception as error:  # noqa: BLE001  whatever a file raises is its problem
        return [_in_words(error, str(file))]


def _read(module: str, others: list[UseCase]) -> tuple[list[UseCase], list[str]]:
    """The use cases of one module that are not among `others`, and their problems."""
    try:
        values = list(vars(import_module(module)).values())
        declared = [value for value in values if isinstance(value, UseCase)]
        if not declared:
            return [], ["it declares no UseCase; declare one, or begin the file's name with _"]
        found: list[UseCase] = []
        problems = []
        for use_case in declared:
            # A module may import another one's use case.
            if any(use_case is other for other in (*others, *found)):
                continue
            own = check.problems(use_case) + check.clashes(use_case, (*others, *found))
            problems += [problem if len(declared) == 1 else f"{use_case.name}: {problem}" for problem in own]
            found.append(use_case)
        return found, problems
    except Exception as error:  # noqa: BLE001  whatever a file raises, the other use cases run
        return [], [_in_words(error, _file(module))]


def _in_words(error: Exception, file: str) -> str:
    """An exception, with the line of the file that raised it."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(file)]
    return (f"line {lines[-1]}: " if lines else "a value has a wrong type: ") + f"{type(error).__name__}: {error}"


def _file(module: str) -> str:
    """A module's file, below the current folder if it is there."""
    spec = find_spec(module)
    path = Path(spec.origin if spec and spec.origin else module)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
