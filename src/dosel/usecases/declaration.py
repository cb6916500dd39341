"""The declaration of a use case. Everything else that names a column is derived from it.

Airflow reads declarations each time it parses its DAGs, so this module imports only the standard library, and families
build their estimators in functions that import when they are called.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dosel.usecases.features import Category, Feature, Number, Target

SURPLUS = "surplus"
"""The raw table's column of what a row holds beyond the declared ones, as a JSON list; null if it holds no more."""

RESERVED_COLUMNS = ("batch_id", "row_no", "row_key", "reason", SURPLUS)
"""Columns that every use case's tables have beside the declared ones."""

Imputer = Literal["none", "iterative"]
"""What fills in a missing number: nothing, or a regression on the other numbers."""

SearchKind = Literal["grid", "optuna"]
"""How a family's space is searched: every point, or trial by trial (Optuna's TPE, which prunes poor trials early)."""

HarmAction = Literal["notify", "retrain", "roll back"]
"""What follows once harm is proven."""

Metric = Literal["accuracy", "balanced_accuracy", "f1_macro"]
"""The metric that searches maximise and the gate compares, by scikit-learn's names."""

StrategyName = Literal["each", "forest_prefixes"]
"""How a family's candidates are fitted: each by itself, or smaller forests as parts of larger ones
(`dosel.training.strategies`)."""


@dataclass(frozen=True)
class Range:
    """Any number from `minimum` to `maximum`, both inclusive; `log` samples uniformly on a log scale."""

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
    at_once: int = field(default=1, repr=False)
    """Number of Optuna's trials that are proposed together and scored side by side. With more, a proposal knows less
    about those before it."""


@dataclass(frozen=True)
class Family:
    """Models of one kind, and the search of their parameters.

    `build` takes a seed and returns an unfitted scikit-learn classifier; the space's names are its parameters.
    `strategy` changes the cost of a search and never its result.
    """

    name: str
    build: Callable[[int], Any]
    space: Space
    strategy: StrategyName = "each"
    search: Search = field(default_factory=Search)
    partitioned: bool = False
    """Whether the rows may outgrow memory: LightGBM then trains on partitions, on the cluster if there is one. Its
    trees depend on the number of workers."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing in the model's pipeline, besides scaling, which each number declares."""

    imputer: Imputer = "none"


@dataclass(frozen=True)
class DataApiRows:
    """The source is the outside data API: batches with columns in declared order."""


@dataclass(frozen=True)
class PackageRows:
    """The source is a CSV with a header in an installed package."""

    package: str
    path: str


@dataclass(frozen=True)
class FileRows:
    """The source is a CSV with a header at `path`, in one of Python's encodings."""

    path: str
    encoding: str = "utf-8"


@dataclass(frozen=True)
class GeneratedRows:
    """The source is a function that generates rows as mappings by column; `description` is for people."""

    generate: Callable[[], Iterable[Mapping[str, Any]]]
    description: str


@dataclass(frozen=True)
class LakeRows:
    """The source is a CSV with a header in the data lake, at `key` in the bucket `data`.

    If there is none, the file that `DOSEL_FILES` names is copied there, or the rows of `otherwise` are generated.
    """

    key: str
    otherwise: GeneratedRows


RowsFrom = DataApiRows | PackageRows | FileRows | GeneratedRows | LakeRows


@dataclass(frozen=True)
class Split:
    """The holdout: a salted hash of a row's features decides its side, so that a row never changes sides."""

    salt: str
    test_share: float = 0.30


@dataclass(frozen=True)
class Shadow:
    """How a challenger that passed the gate proves itself on live rows, which the champion answers meanwhile."""

    min_labels: int = 100
    """The fewest labelled rows, answered by both versions, on which the challenger may be promoted or refused."""
    max_days: float = 14.0
    """Without a decision by then, the champion stays."""
    sample: float = 1.0
    """The share of answered rows that the challenger answers, too."""
    alpha: float = 0.01
    """The probability that a challenger which is no better is promoted, however often the evidence is checked."""
    watch_back: bool = True
    """Whether the previous champion answers in shadow after a promotion, and comes back once it is proven better."""
    share: float = 0.0
    """Canary: the share of the values of `sticky_by` whose one-row requests the challenger answers."""
    sticky_by: str = ""
    """Canary: the feature whose value decides which version answers, so that equal values get the same version."""


@dataclass(frozen=True)
class Gate:
    """The rules for entering Production, on the held-out rows; differences are challenger minus champion.

    Values are shares, 0 to 1. Rules that compare hold while nothing is in Production.
    """

    metric: Metric = "accuracy"
    min_gain: float = 0.001
    """The metric must be higher by at least this."""
    tolerance: float = 0.01
    """The confidence intervals of the differences must exclude a loss of more than this, over all looks at one holdout
    together: each look gets a share of it."""
    max_class_drop: float = 0.10
    """No class's recall may fall by more than this."""
    floor: float = 0.0
    """The metric must be at least this."""
    max_gap: float | None = None
    """The accuracies of a declared group's values must not lie further apart than this; None means any gap."""
    confidence: float = 0.95
    """Of the intervals, over all looks at one holdout together."""
    resamples: int = 1000
    looks: int = 100
    """The number of comparisons with the champion that one holdout serves; after that, a new salt chooses another."""
    shadow: Shadow | None = None
    """Without it, a challenger that passes enters Production at once."""


@dataclass(frozen=True)
class Monitor:
    """How the version in Production is tested on labelled rows."""

    alpha: float = 0.01
    """The probability of a false `harmed`, over all metrics, labels and versions together."""
    on_harm: tuple[HarmAction, ...] = ("notify",)
    """What follows once harm is proven. `retrain` trains with another seed; `roll back` puts the previous version
    back, once. `notify` is always among them: harm is an event in any case."""


@dataclass(frozen=True)
class Approval:
    """How many people, each with a key of the role promoter, must agree before a version enters Production.

    A rollback, to a version that was there before, needs one of them at most.
    """

    people: int = 1
    """For a promotion by hand. With 1, nobody else has to agree."""
    automatic: int = 0
    """For a version that the gate lets pass, or that live rows prove better. With 0, it enters Production at once."""
    hours: float = 24.0
    """A request expires after that time."""


@dataclass(frozen=True)
class UseCase:
    """One declaration: features in the order of the source's columns, the target last."""

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
    monitor: Monitor = field(default_factory=Monitor)
    approval: Approval = field(default_factory=Approval)
    folds: int = 3
    rows: RowsFrom = field(default_factory=DataApiRows)
    missing: tuple[str, ...] = ()
    """Texts that mean a missing value, without regard to case."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    processed: bool = False
    """Whether preprocessed rows are logged to MLflow and written to the lake."""
    priority: int = 1
    """Airflow starts tasks of use cases with a higher priority first."""
    default: bool = False
    """Whether `POST /predict`, which older clients use, means this use case."""
    max_refused_share: float = 0.05
    """A batch with a larger share of invalid rows is refused as a whole."""
    groups: tuple[str, ...] = ()
    """Categories whose values get figures of their own in the gate's report, such as a gender."""
    expose_training_rows: bool = False
    """Whether answers may contain the values of training rows, and figures exact enough to find out about one.

    Without it, the use case is closed."""

    @property
    def decimals(self) -> int:
        """Decimals of probabilities in answers: what a float32, in which ONNX Runtime computes, can hold.

        Fewer if training rows are not exposed, since exact probabilities tell which rows a model has seen.
        """
        return 7 if self.expose_training_rows else 3

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in the source's order: the features, then the target."""
        return (*self.feature_names, self.target.name)

    def with_trials(self, trials: int) -> "UseCase":
        """A copy with this number of trials in each Optuna search; 0 keeps the declared numbers."""
        if not trials:
            return self
        families = (
            replace(f, search=replace(f.search, trials=trials)) if f.search.kind == "optuna" else f
            for f in self.families
        )
        return replace(self, families=tuple(families))

    def with_shadow(self) -> "UseCase":
        """A copy whose challengers answer in shadow first; a declared shadow stays as it is."""
        return self if self.gate.shadow else replace(self, gate=replace(self.gate, shadow=Shadow()))

    @property
    def is_partitioned(self) -> bool:
        """Whether the rows may outgrow memory; either all families are partitioned or none."""
        return any(family.partitioned for family in self.families)

    @property
    def caveat(self) -> str:
        """What a version's description says about its training beside the verdict; empty if there is nothing."""
        if not self.is_partitioned:
            return ""
        return (
            "\n\nTrained on partitions: the trees depend on the number of workers that trained them, so that another "
            "training on the same rows may answer some rows differently."
        )

    def family(self, name: str) -> Family | None:
        return next((family for family in self.families if family.name == name), None)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def example(self) -> dict[str, float | str]:
        """A real row for documentation, forms and model signatures. Whole numbers are integers."""
        return {feature.name: feature.typed_example for feature in self.features}

    @property
    def numbers(self) -> tuple[Number, ...]:
        return tuple(f for f in self.features if isinstance(f, Number))

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(f for f in self.features if isinstance(f, Category))
