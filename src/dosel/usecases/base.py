"""What a use case declares. Everything else that names a column is derived from these.

Declarations are read wherever a use case is touched, also while Airflow parses its DAGs, so nothing here
imports more than the standard library; estimators are built by functions that import when called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Scaling = Literal["standard", "minmax"]

Metric = Literal["accuracy", "balanced_accuracy", "f1_macro"]
"""What a search maximises and the gate compares, under scikit-learn's names."""

StrategyName = Literal["each", "forest_prefixes"]
"""How the candidates of a family are fitted: each by itself, or forests of fewer trees as the beginning of
those with more (`dosel.training.strategies`)."""


@dataclass(frozen=True)
class Number:
    """A numeric feature: `low` and `high` are the inclusive bounds of an acceptable value, in `unit`."""

    name: str
    title: str
    unit: str
    low: float
    high: float
    example: float
    help: str
    whole: bool = True
    scaling: Scaling = "standard"

    @property
    def expected(self) -> str:
        """The bounds in words, for messages and documentation."""
        kind = "whole number" if self.whole else "number"
        return f"a {kind} from {self.low:g} to {self.high:g}" + (f" {self.unit}" if self.unit else "")

    @property
    def shown(self) -> float:
        """The example, typed as a client would write it."""
        return int(self.example) if self.whole else float(self.example)

    def refuses(self, value: float) -> bool:
        """Whether a number that could be read is not acceptable (NaN never is)."""
        return not self.low <= value <= self.high or (self.whole and value != int(value))


@dataclass(frozen=True)
class Choice:
    """One value of a category, as stored; `aliases` are other spellings that mean it."""

    value: str
    title: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A feature with a closed list of values, matched without regard to case or surrounding blanks."""

    name: str
    title: str
    choices: tuple[Choice, ...]
    example: str
    help: str

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """Every accepted spelling, case folded, with the value it means."""
        return {
            spelling.casefold(): choice.value for choice in self.choices for spelling in (choice.value, *choice.aliases)
        }

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(choice.value for choice in self.choices)

    @property
    def expected(self) -> str:
        """The choices in words, for messages and documentation."""
        return "one of " + ", ".join(self.values)

    @property
    def shown(self) -> str:
        """The example."""
        return self.example

    def canonical(self, text: str) -> str | None:
        """The declared value that `text` means, or None."""
        return self.spellings.get(text.strip().casefold())


Feature = Number | Category


@dataclass(frozen=True)
class Target:
    """The column to predict: its integer codes, and what each is called.

    `codings` names the ways sources number the classes, each with what to add to a source's code to get
    ours; which one a source uses is a setting (`DATA_API_CLASSES`), never guessed from what it sends.
    """

    name: str
    title: str
    labels: Mapping[int, str]
    codings: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(f"{code} ({label})" for code, label in self.labels.items())


@dataclass(frozen=True)
class Candidate:
    """A family of models and the grid to search.

    `build` takes a seed and returns an unfitted scikit-learn classifier; the grid's names are its
    parameters. `strategy` decides what the search costs, never what it finds.
    """

    family: str
    build: Callable[[int], Any]
    grid: Mapping[str, Sequence[Any]]
    strategy: StrategyName = "each"


@dataclass(frozen=True)
class Split:
    """How rows are held out: by a hash of the row's features, salted, so that a row never changes sides."""

    salt: str
    test_share: float = 0.30


@dataclass(frozen=True)
class Gate:
    """What a challenger must show on the held-out rows to enter Production; differences are to what is there now.

    Shares, 0 to 1. A rule that compares holds by itself while nothing is in Production.
    """

    metric: Metric = "accuracy"
    min_gain: float = 0.001
    """The metric must be higher by at least this."""
    tolerance: float = 0.01
    """The bootstrap interval of the difference must exclude being worse by more than this."""
    max_class_drop: float = 0.10
    """No class's recall may fall by more than this."""
    floor: float = 0.0
    """The metric must be at least this."""
    confidence: float = 0.95
    resamples: int = 1000


@dataclass(frozen=True)
class UseCase:
    """One declaration: features in the order the source sends them, target last."""

    name: str
    title: str
    summary: str
    features: tuple[Feature, ...]
    target: Target
    experiment: str
    model_name: str
    candidates: tuple[Candidate, ...]
    split: Split
    gate: Gate = field(default_factory=Gate)
    folds: int = 3
    max_refused_share: float = 0.05
    """A batch with a larger share of unacceptable rows is refused whole."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the source's order: the features, then the target."""
        return (*self.feature_names, self.target.name)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def example(self) -> dict[str, float | str]:
        """A real row: the one that documentation, forms and model signatures show. Whole numbers are integers."""
        return {feature.name: feature.shown for feature in self.features}

    @property
    def numbers(self) -> tuple[Number, ...]:
        return tuple(f for f in self.features if isinstance(f, Number))

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(f for f in self.features if isinstance(f, Category))
