"""What is wrong with a declaration, in words: the field, what it holds, and what to write instead."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dosel.usecases.declaration import RESERVED_COLUMNS, Approval, Family, HarmAction, Monitor, Range, Shadow, UseCase
from dosel.usecases.features import Bins, Category, Feature, Number, Target, as_number, plain_name

MYSQL_NAME = 64
"""Characters of a table's or column's name in MySQL."""
NAME_LENGTH = MYSQL_NAME - len("_quarantine")
MODEL_NAME_LENGTH = 128

MAX_SHADOW_DAYS = 90
"""The prediction log keeps answers that long by default."""
MAX_APPROVAL_HOURS = 24 * 30
VALUE_LENGTH = 64
"""Characters of a category's value in the clean table."""

RESERVED_ALIASES = ("challenger", "latest", "previous", "production")
_VERSION_ALIAS = re.compile(r"v\d+")


def problems(use_case: UseCase) -> list[str]:
    """The problems of one declaration by itself; empty if it can be used."""
    return [
        *_names(use_case),
        *_columns(use_case),
        *(problem for number in use_case.numbers for problem in _number(number)),
        *(problem for category in use_case.categories for problem in _category(category)),
        *_target(use_case.target),
        *_missing_marks(use_case),
        *_families(use_case),
        *_figures(use_case),
        *_groups(use_case),
        *_monitor(use_case.monitor),
        *_shadow(use_case),
        *_approval(use_case.approval),
        *_unknown_options(use_case, ""),
    ]


def clashes(use_case: UseCase, others: Iterable[UseCase]) -> list[str]:
    """The problems of a declaration beside those that are accepted already."""
    return [problem for other in others for problem in _clashes(use_case, other)]


def _clashes(mine: UseCase, other: UseCase) -> Iterator[str]:
    if mine.name in (other.name, other.model_name):
        yield f"name: the use case {other.name} has {mine.name!r} already; write another"
    if mine.model_name in (other.name, other.model_name):
        yield f"model_name: the use case {other.name} has {mine.model_name!r} already; write another"
    if mine.experiment == other.experiment:
        yield f"experiment: the use case {other.name} has {mine.experiment!r} already; write another"
    if mine.default and other.default:
        yield f"default: {other.name} is the default already; write default=True in one file only"


def _names(use_case: UseCase) -> Iterator[str]:
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{NAME_LENGTH - 1}}}", use_case.name):
        yield (
            f"name: {use_case.name!r} cannot name tables; write a small letter, then small letters, digits and _, "
            f"at most {NAME_LENGTH} characters"
        )
    if not 0 < len(use_case.model_name) <= MODEL_NAME_LENGTH or re.search("[/:]", use_case.model_name):
        yield (
            f"model_name: MLflow cannot register {use_case.model_name!r}; write 1 to {MODEL_NAME_LENGTH} characters, "
            "without / and :"
        )
    if not use_case.experiment.strip():
        yield "experiment: it is empty; write the name of an experiment in MLflow"


def _columns(use_case: UseCase) -> Iterator[str]:
    if not use_case.features:
        yield "features: there are none; declare at least one Number or Category"
    columns = (*use_case.features, use_case.target)
    known: dict[str, int] = {}
    for place, column in enumerate(columns):
        field = _field(column)
        if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9_]{{0,{MYSQL_NAME - 1}}}", column.name):
            yield (
                f"{field}: this cannot name a column; write a letter, then letters, digits and _, at most "
                f"{MYSQL_NAME} characters, and the source's name as an alias"
            )
        if column.name.casefold() in RESERVED_COLUMNS:
            yield f"{field}: dosel's tables have a column of their own with this name; write another"
        if use_case.default and column.name.casefold() == "model":
            yield f"{field}: POST /predict has a field of its own with this name; write another"
        for name in (column.name, *column.aliases):
            # A column may repeat a name of its own.
            if (first := known.setdefault(plain_name(name), place)) != place:
                yield (
                    f"{field}: {name!r} is also a name of {_field(columns[first])} (letter case, blanks and signs "
                    "do not count); remove it from one of the two"
                )


def _field(column: Number | Category | Target) -> str:
    return f"{'target' if isinstance(column, Target) else 'feature'} {column.name!r}"


def _number(number: Number) -> Iterator[str]:
    if problem := _bounds(number):
        yield f"{_field(number)}: {problem}"
    elif not _is_valid(number, number.example):
        yield f"{_field(number)}: the example {number.example!r} is invalid; write {_expected(number)}"


def _is_valid(number: Number, value: float) -> bool:
    return (
        _is_finite(value) and number.minimum <= value <= number.maximum and not (number.integer and value != int(value))
    )


def _bounds(bounded: Number | Bins | Range) -> str | None:
    low, high = bounded.minimum, bounded.maximum
    if not (_is_finite(low) and _is_finite(high)):
        return f"the bounds {low!r} and {high!r} are not finite numbers; write two numbers"
    if low >= high:
        return f"the minimum {low:g} is not below the maximum {high:g}; write the smaller number as minimum"
    return None


def _expected(feature: Number | Category) -> str:
    return feature.describe_expected().removesuffix(" or nothing")


def _category(category: Category) -> Iterator[str]:
    field = _field(category)
    if not category.choices:
        yield f"{field}: it has no choices; declare each value as a Choice"
        return
    known: dict[str, str] = {}
    for choice in category.choices:
        if len(choice.value) > VALUE_LENGTH:
            yield f"{field}: the value {choice.value!r} is too long; write at most {VALUE_LENGTH} characters"
        for spelling in (choice.value, *choice.aliases):
            if not spelling or spelling != spelling.strip():
                yield f"{field}: the spelling {spelling!r} never matches, since blanks are removed; write it without"
            elif (first := known.get(spelling.casefold())) is not None:
                yield (
                    f"{field}: the spelling {spelling!r} of {choice.value!r} already means {first!r} (letter case "
                    "does not count); remove one of the two"
                )
            else:
                known[spelling.casefold()] = choice.value
    if category.example not in category.values:
        yield f"{field}: the example {category.example!r} is no choice; write {_expected(category)}"


def _target(target: Target) -> Iterator[str]:
    field = _field(target)
    if len(target.labels) < 2:
        yield f"{field}: labels has {len(target.labels)} classes; declare at least two"
    if len(set(target.labels.values())) < len(target.labels):
        yield f"{field}: two classes have the same label; write a different label for each"
    for text, code in target.spellings.items():
        if code not in target.labels:
            yield f"{field}: the spelling {text!r} means {code}, which is no class; write one of {list(target.labels)}"
    folded = [text.strip().casefold() for text in target.spellings]
    for text in sorted({text for text in folded if folded.count(text) > 1}):
        yield f"{field}: the spelling {text!r} is declared twice (letter case does not count); remove one of the two"
    if target.bins:
        if problem := _bounds(target.bins):
            yield f"{field}: bins: {problem}"
        elif any(a >= b for a, b in pairwise((target.bins.minimum, *target.bins.at, target.bins.maximum))):
            yield f"{field}: bins: the limits {target.bins.at} do not ascend between minimum and maximum; sort them"
        if len(target.bins.at) + 1 != len(target.labels):
            yield (
                f"{field}: bins: {len(target.bins.at)} limits make {len(target.bins.at) + 1} classes, and labels has "
                f"{len(target.labels)}; write a label for each"
            )


def _missing_marks(use_case: UseCase) -> Iterator[str]:
    for mark in use_case.missing:
        for number in use_case.numbers:
            if _is_valid(number, as_number(mark)):
                yield f"missing: {mark!r} is a valid {number.name}; remove the mark, or narrow the feature's bounds"
        for category in use_case.categories:
            if mark.strip().casefold() in category.spellings:
                yield f"missing: {mark!r} is a choice of {category.name}; remove the mark or the choice"


def _families(use_case: UseCase) -> Iterator[str]:
    if not use_case.families:
        yield "families: there are none; declare at least one Family"
    names = [family.name for family in use_case.families]
    for name in dict.fromkeys(names):
        field = f"family {name!r}"
        if names.count(name) > 1:
            yield f"{field}: {names.count(name)} families have this name; write a different name for each"
        if name in (*RESERVED_ALIASES, use_case.model_name) or _VERSION_ALIAS.fullmatch(name):
            yield (
                f"{field}: this name is reserved as an alias in MLflow, like {', '.join(RESERVED_ALIASES)}, v1 and the "
                "model's name; write another"
            )
        elif not re.fullmatch("[a-z][a-z0-9_]*", name):
            yield f"{field}: this cannot be an alias; write a small letter, then small letters, digits and _"
    for family in use_case.families:
        yield from (f"family {family.name!r}: {problem}" for problem in _search(family))
        weights = family.space.get("weights", ())
        if not use_case.expose_training_rows and isinstance(weights, Sequence) and "distance" in weights:
            yield (
                f"family {family.name!r}: space: weights: 'distance' gives certainty on a training row and less beside "
                "it, so predictions reveal the row; leave it out, or write expose_training_rows=True"
            )
    if use_case.is_partitioned:
        yield from _partitioned(use_case)


def _partitioned(use_case: UseCase) -> Iterator[str]:
    """Problems that prevent a training on partitions."""
    for family in use_case.families:
        field = f"family {family.name!r}"
        if not family.partitioned:
            yield f"{field}: all rows would have to fit into memory for it; write partitioned=True for every family"
        elif family.search.kind != "grid":
            yield f"{field}: partitioned families are searched as a grid; leave search out, and write lists of values"
    if use_case.preprocessing.imputer != "none":
        yield (
            f"preprocessing: the {use_case.preprocessing.imputer} imputer needs all rows at once; leave it out, since "
            "the LightGBM of partitioned families takes missing numbers"
        )
    if use_case.processed:
        yield "processed: preprocessed rows of partitioned families are not written; leave it out"


def _search(family: Family) -> Iterator[str]:
    for what in ("trials", "at_once"):
        if (count := getattr(family.search, what)) < 1:
            yield f"search: {what}: {count} is too few; write at least 1"
    for parameter, values in family.space.items():
        if problem := _space(family, values):
            yield f"space: {parameter}: {problem}"


def _space(family: Family, values: Sequence[Any] | Range) -> str | None:
    if not isinstance(values, Range):
        if isinstance(values, str) or not isinstance(values, Sequence):
            return f"{values!r} is no list of values; write ({values!r},)"
        return None if values else "the list of values is empty; write at least one"
    if family.search.kind == "grid":
        return "a grid cannot search a Range; write a list of values, or search=Search('optuna')"
    if values.log and _is_finite(values.minimum) and values.minimum <= 0:
        return f"a logarithmic Range cannot begin at {values.minimum:g}; write a minimum above 0"
    return _bounds(values)


def _figures(use_case: UseCase) -> Iterator[str]:
    gate = use_case.gate
    shares = {
        "max_refused_share": use_case.max_refused_share,
        **{f"gate.{name}": getattr(gate, name) for name in ("min_gain", "tolerance", "max_class_drop", "floor")},
    }
    for field, share in shares.items():
        if not (_is_finite(share) and 0 <= share <= 1):
            yield f"{field}: {share!r} is no share; write a number from 0 to 1"
    for field, share in {"split.test_share": use_case.split.test_share, "gate.confidence": gate.confidence}.items():
        if not (_is_finite(share) and 0 < share < 1):
            yield f"{field}: {share!r} is too small or too large; write a number between 0 and 1"
    counts = {"folds": (use_case.folds, 2), "gate.resamples": (gate.resamples, 1), "gate.looks": (gate.looks, 1)}
    for field, (count, least) in counts.items():
        if count < least:
            yield f"{field}: {count!r} is too few; write at least {least}"


def _groups(use_case: UseCase) -> Iterator[str]:
    known = [category.name for category in use_case.categories]
    if not isinstance(use_case.groups, tuple):
        yield f"groups: {use_case.groups!r} is no tuple; write ({use_case.groups!r},)"
        return
    for name in dict.fromkeys(use_case.groups):
        if name not in known:
            yield f"groups: {name!r} is no Category; write some of {', '.join(known) or 'none, since there are none'}"
        elif use_case.groups.count(name) > 1:
            yield f"groups: {name!r} is there twice; write it once"
    if (gap := use_case.gate.max_gap) is None:
        return
    if not (_is_finite(gap) and 0 <= gap <= 1):
        yield f"gate.max_gap: {gap!r} is no share; write a number from 0 to 1, or None"
    if not use_case.groups:
        yield "gate.max_gap: no groups are declared; write groups=(…), or leave max_gap out"


def _monitor(monitor: Monitor) -> Iterator[str]:
    if not (_is_finite(monitor.alpha) and 0 < monitor.alpha < 1):
        yield f"monitor.alpha: {monitor.alpha!r} is too small or too large; write a number between 0 and 1"
    known = ", ".join(map(repr, get_args(HarmAction)))
    if not isinstance(monitor.on_harm, tuple) or not monitor.on_harm:
        yield f"monitor.on_harm: {monitor.on_harm!r} is no list of actions; write a tuple of {known}"
        return
    for action in monitor.on_harm:
        if action not in get_args(HarmAction):
            yield f"monitor.on_harm: {action!r} is unknown; write one of {known}"
        elif monitor.on_harm.count(action) > 1:
            yield f"monitor.on_harm: {action!r} is there twice; write it once"
            return


def _shadow(use_case: UseCase) -> Iterator[str]:
    if (shadow := use_case.gate.shadow) is None:
        return
    field = "gate.shadow"
    if shadow.min_labels < 1:
        yield f"{field}.min_labels: {shadow.min_labels!r} is too few; write at least 1"
    if not (_is_finite(shadow.max_days) and 0 < shadow.max_days <= MAX_SHADOW_DAYS):
        yield (
            f"{field}.max_days: {shadow.max_days!r} is too short or too long; write a number above 0, at most "
            f"{MAX_SHADOW_DAYS}"
        )
    if not (_is_finite(shadow.alpha) and 0 < shadow.alpha < 1):
        yield f"{field}.alpha: {shadow.alpha!r} is too small or too large; write a number between 0 and 1"
    if not (_is_finite(shadow.sample) and 0 < shadow.sample <= 1):
        yield f"{field}.sample: {shadow.sample!r} is no share of the rows; write a number above 0, at most 1"
    yield from _canary(use_case, shadow)


def _canary(use_case: UseCase, shadow: Shadow) -> Iterator[str]:
    field = "gate.shadow"
    if not (_is_finite(shadow.share) and 0 <= shadow.share < 1):
        yield f"{field}.share: {shadow.share!r} is no share of the values; write a number from 0, below 1"
        return
    if bool(shadow.share) != bool(shadow.sticky_by):
        yield f"{field}: a canary needs both share and sticky_by; write both, or neither"
    if not shadow.sticky_by:
        return
    feature = next((feature for feature in use_case.features if feature.name == shadow.sticky_by), None)
    if feature is None:
        yield f"{field}.sticky_by: {shadow.sticky_by!r} is no feature; write one of {', '.join(use_case.feature_names)}"
    elif (values := _count_values(feature)) * shadow.share < shadow.min_labels:
        yield (
            f"{field}.sticky_by: {shadow.sticky_by!r} has {values:,} values, and the challenger gets about "
            f"{values * shadow.share:.0f} of them; a decision needs {shadow.min_labels} (min_labels), so name a "
            "feature with more values"
        )


def _count_values(feature: Feature) -> float:
    """How many values a feature can have: infinite for a number that is no integer."""
    if isinstance(feature, Category):
        return len(feature.values)
    return feature.maximum - feature.minimum + 1 if feature.integer else float("inf")


def _approval(approval: Approval) -> Iterator[str]:
    if approval.people < 1:
        yield f"approval.people: {approval.people!r} is too few; write at least 1"
    if not 0 <= approval.automatic <= approval.people:
        yield (
            f"approval.automatic: {approval.automatic!r} is too small or too large; write a number from 0 to "
            f"{approval.people}"
        )
    if not (_is_finite(approval.hours) and 0 < approval.hours <= MAX_APPROVAL_HOURS):
        yield (
            f"approval.hours: {approval.hours!r} is too short or too long; write a number above 0, at most "
            f"{MAX_APPROVAL_HOURS}"
        )


def _unknown_options(declared: Any, path: str) -> Iterator[str]:
    """One message for each value that is none of those that its field's type lists."""
    types = get_type_hints(type(declared))
    for field in fields(declared):
        value, kind = getattr(declared, field.name), types[field.name]
        if get_origin(kind) is Literal and value not in get_args(kind):
            known = ", ".join(map(repr, get_args(kind)))
            yield f"{path}{field.name}: {value!r} is unknown; write one of {known}"
        elif isinstance(value, tuple):
            for item in filter(is_dataclass, value):
                yield from _unknown_options(item, f"{path}{field.name}: {getattr(item, 'name', '')!r}: ")
        elif is_dataclass(value):
            yield from _unknown_options(value, f"{path}{field.name}.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
