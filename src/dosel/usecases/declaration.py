"""What a use case declares. Everything else that names a column is derived from these.

Declarations are read wherever a use case is touched, also while Airflow parses its DAGs, so nothing here
imports more than the standard library; estimators are built by functions that import when called.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dosel.usecases.features import Category, Feature, Number, Target

Imputer = Literal["none", "iterative"]
"""What fills in a missing number: nothing, or a regression on the other numbers."""

SearchKind = Literal["grid", "optuna"]
"""How a family's space is searched: every point, or trial by trial (Optuna's TPE, which prunes poor trials early)."""

Metric = Literal["accuracy", "balanced_accuracy", "f1_macro"]
"""What a search maximises and the gate compares, under scikit-learn's names."""

StrategyName = Literal["each", "forest_prefixes"]
"""How the candidates of a family are fitted: each by itself, or forests of fewer trees as the beginning of
those with more (`dosel.training.strategies`)."""


@dataclass(frozen=True)
class Range:
    """Any number from `minimum` to `maximum`, both inclusive; `log` draws its magnitude evenly."""

    minimum: float
    maximum: float
    log: bool = False
    integer: bool = False


Space = Mapping[str, Sequence[Any] | Range]
"""What is searched, by the parameter's name: a list of values, or for Optuna also a range."""


@dataclass(frozen=True)
class Search:
    """How a family is searched. The metric and the folds are the use case's, since families are compared by them."""

    kind: SearchKind = "grid"
    trials: int = 10
    """Number of Optuna's trials; a grid tries every point."""


@dataclass(frozen=True)
class Family:
    """Models of one kind, and how their parameters are searched.

    `build` takes a seed and returns an unfitted scikit-learn classifier; the space's names are its parameters.
    `strategy` decides what a search costs, never what it finds.
    """

    name: str
    build: Callable[[int], Any]
    space: Space
    strategy: StrategyName = "each"
    search: Search = field(default_factory=Search)


@dataclass(frozen=True)
class Preprocessing:
    """What a model's pipeline does to rows before its classifier; how a number is scaled is the number's own."""

    imputer: Imputer = "none"


@dataclass(frozen=True)
class DataApiRows:
    """Rows come in batches from the outside data API, columns in declared order."""


@dataclass(frozen=True)
class PackageRows:
    """Rows lie in an installed package: a CSV with a header."""

    package: str
    path: str


@dataclass(frozen=True)
class GeneratedRows:
    """Rows are what `make` gives: mappings by column. `said` tells people where they are from."""

    make: Callable[[], Iterable[Mapping[str, Any]]]
    said: str


@dataclass(frozen=True)
class LakeRows:
    """Rows lie in the data lake: a CSV with a header, at `key` in the bucket `data`.

    While the lake has none, the file that `DOSEL_FILES` names is put there, or else what `otherwise` makes.
    """

    key: str
    otherwise: GeneratedRows


RowsFrom = DataApiRows | PackageRows | GeneratedRows | LakeRows


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
    families: tuple[Family, ...]
    split: Split
    gate: Gate = field(default_factory=Gate)
    folds: int = 3
    rows: RowsFrom = field(default_factory=DataApiRows)
    missing: tuple[str, ...] = ()
    """How sources write that there is no value, beside sending none; without regard to case."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    processed: bool = False
    """Whether the sets a training works on are described in MLflow and kept in the lake."""
    priority: int = 1
    """Whose tasks go first where several wait: those with more."""
    default: bool = False
    """Whether the bare `POST /predict` of older clients means this one."""
    max_refused_share: float = 0.05
    """A batch with a larger share of unacceptable rows is refused whole."""
    expose_training_rows: bool = False
    """Whether training rows may be shown to whoever asks why the model answered so."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the source's order: the features, then the target."""
        return (*self.feature_names, self.target.name)

    def with_trials(self, trials: int) -> "UseCase":
        """The same with so many trials where a search is made of trials; 0 leaves those declared."""
        if not trials:
            return self
        families = (
            replace(f, search=replace(f.search, trials=trials)) if f.search.kind == "optuna" else f
            for f in self.families
        )
        return replace(self, families=tuple(families))

    def family(self, name: str) -> Family | None:
        return next((family for family in self.families if family.name == name), None)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def example(self) -> dict[str, float | str]:
        """A real row: the one that documentation, forms and model signatures show. Whole numbers are integers."""
        return {feature.name: feature.typed_example for feature in self.features}

    @property
    def numbers(self) -> tuple[Number, ...]:
        return tuple(f for f in self.features if isinstance(f, Number))

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(f for f in self.features if isinstance(f, Category))
