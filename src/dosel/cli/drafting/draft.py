"""The proposal for a CSV: the features, the target, and what is left out, with the reason."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dosel.cli.drafting.columns import (
    RARE,
    aliases_of,
    bounds,
    choices_of,
    feature_of,
    lacking_of,
    missing_of,
    names_of,
    reason_of,
    tidy,
    title_of,
)
from dosel.cli.drafting.profile import Profile, lines
from dosel.errors import SourceError
from dosel.usecases import Bins, Category, Feature, Target, as_number, plain_name

MOST_CLASSES = 20
RANGES = ("Low", "Medium", "High")
TARGET_NAMES = frozenset({"target", "class", "label", "y", "outcome", "species", "diagnosis", "churn", "quality"})


@dataclass(frozen=True)
class Draft:
    """A proposal. `left_out` has the reason by column, `seen` each number's bounds in the file, by feature."""

    profile: Profile
    features: tuple[Feature, ...]
    target: Target
    target_is_guessed: bool
    missing: tuple[str, ...]
    left_out: Mapping[str, str]
    seen: Mapping[str, tuple[float, float]]
    lacking: Mapping[str, int]
    without_target: int
    classes: Mapping[str, int]

    @property
    def smallest_class(self) -> tuple[str, int]:
        """The rarest class and its rows."""
        return min(self.classes.items(), key=lambda item: item[1])

    @property
    def has_rare_class(self) -> bool:
        """Whether a class has too few rows to be learnt."""
        return self.smallest_class[1] < RARE

    @property
    def is_unbalanced(self) -> bool:
        """Whether a model that always gives the largest class would look good by its accuracy."""
        return max(self.classes.values()) > 0.7 * sum(self.classes.values())


def draft(profile: Profile, wanted: str = "") -> Draft:
    """The proposal for a CSV.

    Args:
        wanted: the column to predict; by default it is guessed.

    Raises:
        SourceError: the column does not exist or cannot be predicted, or no feature is left.
    """
    place = _target_place(profile, wanted)
    column = profile.columns[place]
    missing = missing_of(profile)
    names = names_of(profile)
    target, counts = _target(profile, place, names[place])
    counted = Counter(plain_name(other.name) for other in profile.columns)
    twice = {name: "several columns have this name" for name, count in counted.items() if count > 1}
    if plain_name(column.name) in twice:
        raise SourceError(f"{profile.path}: several columns are called {column.name}; rename all but one")
    left_out: dict[str, str] = {}
    kept: dict[int, Feature] = {}
    for i, other in enumerate(profile.columns):
        if i == place:
            continue
        if reason := twice.get(plain_name(other.name)) or reason_of(other):
            left_out[other.name or f"column {i + 1}"] = reason
        else:
            kept[i] = feature_of(other, names[i])
    for i in _equal(profile, place, set(kept)):
        del kept[i]
        left_out[profile.columns[i].name] = f"it says the same as {column.name}, which is to be predicted"
    if not kept:
        raise SourceError(f"{profile.path}: no column is left to predict {column.name} from")
    features = _with_examples(profile, kept)
    return Draft(
        profile,
        tuple(features.values()),
        target,
        not wanted,
        missing,
        left_out,
        {features[i].name: (profile.columns[i].minimum, profile.columns[i].maximum) for i in features},
        {features[i].name: lacking_of(profile.columns[i]) for i in features},
        lacking_of(column),
        counts,
    )


def _target_place(profile: Profile, wanted: str) -> int:
    known = {plain_name(column.name): place for place, column in reversed(list(enumerate(profile.columns)))}
    if wanted:
        if plain_name(wanted) not in known:
            listed = ", ".join(column.name for column in profile.columns)
            raise SourceError(f"{profile.path} has no column {wanted!r}; there are: {listed}")
        return known[plain_name(wanted)]
    named = [place for name, place in known.items() if name in TARGET_NAMES]
    for place in (*named, len(profile.columns) - 1):
        column = profile.columns[place]
        if len(column.values) > 1 and (column.is_numeric or len(column.values) <= MOST_CLASSES):
            return place
    raise SourceError(f"{profile.path}: which column is to be predicted? Name it with --target")


def _target(profile: Profile, place: int, name: str) -> tuple[Target, dict[str, int]]:
    """The target, and the rows of each class by its label."""
    column = profile.columns[place]
    title, aliases = title_of(name), aliases_of(name, column)
    if len(column.values) < 2:
        raise SourceError(f"{column.name} has one value only; name another column with --target")
    if not column.is_numeric:
        if len(column.values) > MOST_CLASSES:
            raise SourceError(
                f"{column.name} has {len(column.values):,} different words; at most {MOST_CLASSES} classes are proposed"
            )
        choices = list(choices_of(column))
        labels = {code: choice.value for code, choice in enumerate(choices)}
        spellings = {text: code for code, choice in enumerate(choices) for text in (choice.value, *choice.aliases)}
        made = Target(name, title, labels, spellings=spellings, aliases=aliases)
        return made, _counted(made, column.values)
    if column.integers == column.numbers and len(column.values) <= MOST_CLASSES:
        codes = sorted({int(number) for text in column.values if not math.isnan(number := as_number(text))})
        made = Target(name, title, {code: str(code) for code in codes}, aliases=aliases)
        return made, _counted(made, column.values)
    return _binned(profile, place, Target(name, title, {}, aliases=aliases))


def _binned(profile: Profile, place: int, target: Target) -> tuple[Target, dict[str, int]]:
    """A target of three ranges with about as many rows each."""
    column = profile.columns[place]
    rows = lines(profile.path, profile.encoding, profile.delimiter)
    values = sorted(v for row in rows if place < len(row) and not math.isnan(v := as_number(row[place])))
    low, high = bounds(column.minimum, column.maximum, integer=False)
    cuts = [tidy(values[len(values) * part // len(RANGES)]) for part in range(1, len(RANGES))]
    at = tuple(sorted({cut for cut in cuts if low < cut < high}))
    if not at:
        raise SourceError(f"{column.name}: most rows have the same value; name another column with --target")
    labels = dict(enumerate(RANGES if len(at) == 2 else (RANGES[0], RANGES[-1])))
    made = replace(target, labels=labels, bins=Bins(low, high, at))
    return made, _counted(made, Counter(map(repr, values)))


def _counted(target: Target, values: Counter[str]) -> dict[str, int]:
    """The rows of each class by its label."""
    counts = dict.fromkeys(target.labels.values(), 0)
    for text, count in values.items():
        if (code := target.code(text, "")) is not None:
            counts[target.labels[code]] += count
    return counts


def _equal(profile: Profile, place: int, candidates: set[int]) -> list[int]:
    """The columns with one value for each value of the target, and the other way round."""
    target = profile.columns[place]
    few = not target.is_full and len(target.values) <= MOST_CLASSES
    candidates = {i for i in candidates if len(profile.columns[i].values) == len(target.values)}
    pairs: dict[int, tuple[dict[str, str], dict[str, str]]] = {i: ({}, {}) for i in candidates}
    for row in lines(profile.path, profile.encoding, profile.delimiter):
        if not candidates:
            break
        for i in tuple(candidates):
            mine, its = (row[k].strip() if k < len(row) else "" for k in (i, place))
            there, back = pairs[i]
            fits = there.setdefault(mine, its) == its and back.setdefault(its, mine) == mine if few else mine == its
            if not fits:
                candidates.discard(i)
    return sorted(candidates)


def _with_examples(profile: Profile, kept: Mapping[int, Feature]) -> dict[int, Feature]:
    """The features with a real row as their example, if a row has them all."""
    found: dict[int, str] = {}
    for row in lines(profile.path, profile.encoding, profile.delimiter):
        here = {i: row[i].strip() for i, feature in kept.items() if i < len(row) and _is_example(feature, row[i])}
        if len(here) == len(kept):
            found = here
            break
        found = here | found
    return {i: _with_example(feature, found.get(i)) for i, feature in kept.items()}


def _is_example(feature: Feature, text: str) -> bool:
    if isinstance(feature, Category):
        return text.strip().casefold() in feature.spellings
    return not math.isnan(as_number(text))


def _with_example(feature: Feature, text: str | None) -> Feature:
    if text is None:
        return feature
    if isinstance(feature, Category):
        return replace(feature, example=feature.spellings[text.casefold()])
    number = as_number(text)
    return replace(feature, example=int(number) if feature.integer else number)
