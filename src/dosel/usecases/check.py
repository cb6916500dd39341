"""What is wrong with a declaration, in words: the field, what it holds, and what to write instead."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dosel.usecases.declaration import RESERVED_COLUMNS, Family, Range, UseCase
from dosel.usecases.features import Bins, Category, Feature, Number, Target, as_number

_MYSQL_NAME = 64
_LONGEST_SUFFIX = "_quarantine"
_MODEL_NAME = 128
_VALUE = 64
"""Characters that fit: MySQL's for a table or column, and those of our own columns for a model and a category."""

_RESERVED_ALIASES = ("latest", "previous", "production")
_VERSION_ALIAS = re.compile(r"v\d+")


def problems(use_case: UseCase) -> list[str]:
    """The problems of one declaration by itself; empty if it can be used."""
    return [
        *_names(use_case),
        *_columns(use_case),
        *(problem for feature in use_case.features for problem in _feature(feature)),
        *_target(use_case.target),
        *_missing_marks(use_case),
        *_families(use_case),
        *_ranges_of_settings(use_case),
        *_unknown_options(use_case, ""),
    ]


def clashes(use_case: UseCase, others: Iterable[UseCase]) -> list[str]:
    """The problems of a declaration beside others."""
    return [problem for other in others for problem in _clashes(use_case, other)]


def _clashes(mine: UseCase, other: UseCase) -> Iterator[str]:
    if mine.name == other.name:
        yield f"name: {mine.name!r} is declared twice; give one of the two use cases another name"
    # A command takes either name, and MLflow finds models and experiments without regard to the use case.
    taken = {mine.name, mine.model_name} & {other.name, other.model_name} - {mine.name if mine.name == other.name else ""}
    for name in sorted(taken):
        yield f"model_name: {name!r} is also a name of the use case {other.name}; write another"
    if mine.experiment == other.experiment:
        yield f"experiment: {mine.experiment!r} is also the experiment of {other.name}; write another"
    if mine.default and other.default:
        yield f"default: {other.name} is the default already; write default=True in one file only"


def _names(use_case: UseCase) -> Iterator[str]:
    most = _MYSQL_NAME - len(_LONGEST_SUFFIX)
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{most - 1}}}", use_case.name):
        yield (
            f"name: {use_case.name!r} cannot name tables; write a small letter, then small letters, digits and _, "
            f"at most {most} characters"
        )
    if not use_case.model_name or len(use_case.model_name) > _MODEL_NAME or re.search("[/:]", use_case.model_name):
        yield (
            f"model_name: {use_case.model_name!r} cannot be registered; write 1 to {_MODEL_NAME} characters "
            "without / and :"
        )
    if not use_case.experiment.strip():
        yield "experiment: it is empty; write the name of an experiment in MLflow"


def _columns(use_case: UseCase) -> Iterator[str]:
    if not use_case.features:
        yield "features: there are none; declare at least one Number or Category"
    declared: dict[str, str] = {}
    for column in (*use_case.features, use_case.target):
        field = _field(column)
        if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9_]{{0,{_MYSQL_NAME - 1}}}", column.name):
            yield (
                f"{field}: {column.name!r} cannot name a column; write a letter, then letters, digits and _, "
                f"at most {_MYSQL_NAME} characters (aliases may hold the source's name)"
            )
        if column.name.casefold() in RESERVED_COLUMNS:
            yield f"{field}: dosel's own tables have a column {column.name}; write another name"
        if use_case.default and column.name == "model":
            yield f"{field}: POST /predict of the default use case has a field model of its own; write another name"
        # Of one column, a name may be repeated: it still means this column.
        for name in {_plain(name): name for name in (*column.aliases, column.name)}.items():
            if (other := declared.setdefault(name[0], field)) != field:
                yield f"{field}: {name[1]!r} also names {other}, as letter case does not count; write another name"
    names = Counter(_field(feature) for feature in use_case.features)
    for field, count in names.items():
        if count > 1:
            yield f"{field}: {count} features have this name; remove or rename all but one"


def _plain(name: str) -> str:
    """A column's name as sources find it."""
    return re.sub(r"[\W_]+", "_", name.strip()).casefold()


def _field(column: Feature | Target) -> str:
    return f"target {column.name}" if isinstance(column, Target) else f"feature {column.name}"


def _feature(feature: Feature) -> Iterator[str]:
    match feature:
        case Number():
            yield from _number(feature)
        case Category():
            yield from _category(feature)


def _number(number: Number) -> Iterator[str]:
    field = _field(number)
    if (problem := _bounds(number.minimum, number.maximum)) is not None:
        yield f"{field}: {problem}"
    elif not _is_number(number.example) or number.refuses(number.example):
        yield f"{field}: the example {number.example!r} is not acceptable; write {number.describe_expected()}"


def _category(category: Category) -> Iterator[str]:
    field = _field(category)
    if not category.choices:
        yield f"{field}: it has no choices; declare each value as a Choice"
        return
    meant: dict[str, str] = {}
    for choice in category.choices:
        if not 0 < len(choice.value) <= _VALUE:
            yield f"{field}: the value {choice.value!r} cannot be stored; write 1 to {_VALUE} characters"
        for spelling in (choice.value, *choice.aliases):
            if spelling != spelling.strip() or not spelling:
                yield f"{field}: {spelling!r} is empty or has blanks around it, which rows are read without; remove them"
            elif (other := meant.setdefault(spelling.casefold(), choice.value)) != choice.value:
                yield f"{field}: {spelling!r} means both {other!r} and {choice.value!r}; keep it in one of the two"
    spelled = Counter(s.casefold() for choice in category.choices for s in (choice.value, *choice.aliases))
    for spelling, count in spelled.items():
        if count > 1 and meant.get(spelling) is not None and _same_choice(category, spelling):
            yield f"{field}: {spelling!r} is written {count} times, as letter case does not count; write it once"
    if category.example not in category.values:
        yield f"{field}: the example {category.example!r} is not a choice; write {category.describe_expected()}"
