"""The model card of a version: what it is for, its figures with intervals, its limits and its lineage.

It is generated from the declaration, the manifest and the gate's verdict; nobody types it (Mitchell et al., Model Cards
for Model Reporting, FAT* 2019). `dosel.registry.card_formats` writes it as Markdown and as a CycloneDX ML-BOM.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dosel.closed import HIDDEN, coarse, shown, shown_files
from dosel.model import tags
from dosel.model.facts import HOLDOUT
from dosel.usecases import DataApiRows, FileRows, GeneratedRows, LakeRows, PackageRows, UseCase
from dosel.usecases.features import Feature

if TYPE_CHECKING:
    # Importing these takes seconds, in which the API can already answer.
    from dosel.registry.manifests import Manifest
    from dosel.registry.shadows import ShadowRecord
    from dosel.registry.store import ModelVersion
    from dosel.registry.verdicts import Verdict

FEWEST_SHOWN = 10
"""Fewest rows whose figures a card of a closed use case shows."""

ROWS_DIGEST = "rows (SHA-256)"

FEWEST_SURE = 30
"""With fewer held-out rows, a figure is named among the limits."""

KEPT_OUT = frozenset({"refused", "undecided", "stopped"})
"""Ends of a challenger's shadow after which it did not enter Production."""

SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1_macro": "F1, macro"}
"""The overall figures, by the metric's name."""


@dataclass(frozen=True)
class Input:
    """A feature: its column, its title, the values that are accepted, and whether it may be missing."""

    name: str
    title: str
    expected: str
    optional: bool


@dataclass(frozen=True)
class Figure:
    """A figure on held-out rows, 0 to 1.

    Attributes:
        name: the figure, such as "recall".
        slice: of which rows; "" for all.
        rows: how many they are; None if the figure is withheld since they are few, or if that is not known.
        value, low, high: the figure and its interval; None if withheld, the interval also if it is not known.
    """

    name: str
    slice: str
    rows: int | None
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def is_withheld(self) -> bool:
        return self.value is None


@dataclass(frozen=True)
class RuleResult:
    """One rule of the gate."""

    name: str
    holds: bool
    words: str


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        target: the title of what is predicted, and `classes` its labels.
        source: where the rows come from.
        confidence: of the figures' intervals.
        gate: the decision in words; None if the gate has not judged.
        lineage: the run, rows, code, parameters and digests, by their names; what is not known is left out.
        files: SHA-256 of each of the version's files, by path.
    """

    model: str
    version: int
    created_at: datetime
    title: str
    summary: str
    target: str
    classes: tuple[str, ...]
    inputs: tuple[Input, ...]
    source: str
    confidence: float
    figures: tuple[Figure, ...]
    limits: tuple[str, ...]
    gate: str | None
    rules: tuple[RuleResult, ...]
    lineage: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def card_of(
    use_case: UseCase,
    version: "ModelVersion",
    manifest: "Manifest | None",
    verdict: "Verdict | None",
    shadows: Iterable["ShadowRecord"] = (),
) -> Card:
    """The card of a version, from the ledger's facts alone: figures that can be edited in MLflow are left out.

    Args:
        shadows: those of this version; what live rows showed of it is among the limits.
    """
    report: Mapping[str, Any] = (verdict.report if verdict else None) or {}
    figures, target = tuple(_figures(use_case, version, report)), use_case.target
    # The gate's words have exact figures, from which those that are withheld could be computed.
    is_open = verdict is not None and not any(figure.is_withheld for figure in figures)
    return Card(
        model=version.name,
        version=version.version,
        created_at=version.created_at,
        title=use_case.title,
        summary=use_case.summary,
        target=target.title,
        classes=tuple(target.labels.values()),
        inputs=tuple(Input(f.name, f.title, _expected(f), f.optional) for f in use_case.features),
        source=_source(use_case),
        confidence=use_case.gate.confidence,
        figures=figures,
        limits=(*_limits(use_case, version, manifest, verdict, figures), *_on_live_rows(use_case, shadows)),
        gate=_decision(verdict) + (f": {shown(use_case, verdict.reason)}" if is_open else "") if verdict else None,
        rules=tuple(
            RuleResult(r["name"], r["holds"], shown(use_case, r["words"]) if is_open else "withheld")
            for r in report.get("rules", ())
        ),
        lineage=_shown_lineage(use_case, _lineage(version, manifest)),
        files=shown_files(use_case, manifest.files) if manifest else {},
    )


def _decision(verdict: "Verdict") -> str:
    return "Passed" if verdict.passed else "Refused"


def _expected(feature: Feature) -> str:
    return feature.describe_expected().removesuffix(" or nothing")


def _source(use_case: UseCase) -> str:
    match use_case.rows:
        case DataApiRows():
            return "batches of the data API"
        case PackageRows(package, path):
            return f"{path} of the package {package}"
        case FileRows(path):
            # Without the folders of the machine that trained.
            return f"the file {PurePath(path).name}"
        case GeneratedRows(_, description):
            return description
        case LakeRows(key, otherwise):
            return f"{key} of the data lake; without that file, {otherwise.description}"


def _figures(use_case: UseCase, version: "ModelVersion", report: Mapping[str, Any]) -> Iterator[Figure]:
    labels = {str(code): label for code, label in use_case.target.labels.items()}
    yield from _overall(use_case, version, report)
    recalled = {labels[code]: counts for code, counts in report.get("recalled", {}).items() if code in labels}
    yield from _shares(use_case, "recall", {f"class {label}": counts for label, counts in recalled.items()})
    for group, counted in report.get("groups", {}).items():
        slices = {f"{group}: {value or 'missing'}": counts for value, counts in counted.items()}
        yield from _shares(use_case, "accuracy", slices)


def _overall(use_case: UseCase, version: "ModelVersion", report: Mapping[str, Any]) -> Iterator[Figure]:
    from dosel.registry.intervals import share_interval

    measured, intervals = report.get("metrics", {}).get("challenger", {}), report.get("intervals", {})
    rows = report.get("rows") if measured else int(version.tags.get(tags.ROWS_TEST, 0)) if version.attested else None
    for metric, name in SCORES.items():
        value = measured.get(metric, version.metrics.get(f"{HOLDOUT}{metric}") if version.attested else None)
        if value is None or not math.isfinite(value):
            continue
        low, high = intervals.get(metric, (None, None))
        if metric == "accuracy" and rows:
            low, high = share_interval(round(value * rows), rows, use_case.gate.confidence)
        elif low == high:
            # An older dosel recorded the bootstrap's interval, which is empty if every row was answered correctly.
            low = high = None
        yield _rounded(use_case, Figure(name, "", rows, value, low, high))


def _shares(use_case: UseCase, name: str, counted: Mapping[str, Iterable[int]]) -> Iterator[Figure]:
    """The shares of correct answers among slices that together are all rows, those of few rows withheld."""
    from dosel.registry.intervals import share_interval

    counts = {part: (correct, rows) for part, (correct, rows) in counted.items() if rows}
    withheld = set() if use_case.expose_training_rows else _withheld({part: rows for part, (_, rows) in counts.items()})
    for part, (correct, rows) in counts.items():
        low, high = share_interval(correct, rows, use_case.gate.confidence)
        figure = _rounded(use_case, Figure(name, part, rows, correct / rows, low, high))
        yield Figure(name, part, None, None) if part in withheld else figure


def _rounded(use_case: UseCase, figure: Figure) -> Figure:
    """The figure; coarse for a closed use case: from more decimals and rows, somebody could compute counts."""
    known = {name: shown(use_case, getattr(figure, name)) for name in ("rows", "value", "low", "high")}
    return replace(figure, **known)


def _withheld(rows: Mapping[str, int]) -> set[str]:
    """The slices of few rows. If there is only one, also the next larger one: the total would give it away."""
    smallest = sorted(rows, key=rows.__getitem__)
    few = [part for part in smallest if rows[part] < FEWEST_SHOWN]
    return set(smallest[:2] if len(few) == 1 else few)


def _limits(
    use_case: UseCase,
    version: "ModelVersion",
    manifest: "Manifest | None",
    verdict: "Verdict | None",
    figures: Iterable[Figure],
) -> Iterator[str]:
    from dosel.model.fingerprint import declaration, declaration_changes

    yield "Rows with values outside the inputs' bounds are refused, and no figure says anything of them"
    if not version.attested:
        yield "dosel did not train this version, or an older dosel did: its training is not known"
    if verdict is None:
        yield "The gate has not judged this version: figures of classes and groups are not known"
    elif not verdict.passed:
        yield "The gate refused this version"
    if manifest is not None and manifest.facts is not None:
        changes = declaration_changes(manifest.facts.declaration, declaration(use_case))
        if changes:
            yield f"It was trained for another declaration: {changes}"
    for figure in figures:
        yield from _limits_of(figure)
    if use_case.caveat:
        yield use_case.caveat.strip().removesuffix(".")


def _on_live_rows(use_case: UseCase, shadows: Iterable["ShadowRecord"]) -> Iterator[str]:
    for shadow in shadows:
        if shadow.end is not None and shadow.role == "challenger" and shadow.end.outcome in KEPT_OUT:
            what = f"In shadow of version {shadow.champion} it was {shadow.end.outcome}"
            yield f"{what}: {shown(use_case, shadow.end.reason)}"


def _limits_of(figure: Figure) -> Iterator[str]:
    of = f"{figure.name} of {figure.slice}" if figure.slice else figure.name
    if figure.is_withheld:
        yield f"The {of} is withheld: too few rows, or it would reveal another withheld figure"
    elif figure.rows is not None and figure.rows < FEWEST_SURE:
        yield f"The {of} rests on {figure.rows} held-out rows only"
    elif figure.slice and figure.value is not None and figure.value < 0.5:
        yield f"The {of} is {figure.value:.3f}: most of these rows are answered wrongly"


def _shown_lineage(use_case: UseCase, lineage: dict[str, str]) -> dict[str, str]:
    """The lineage; of a closed use case with coarse counts of rows, and without their digest."""
    if use_case.expose_training_rows:
        return lineage
    counts = {name: str(coarse(int(lineage[name]))) for name in ("training rows", "held-out rows") if name in lineage}
    return lineage | counts | ({ROWS_DIGEST: HIDDEN} if ROWS_DIGEST in lineage else {})


def _lineage(version: "ModelVersion", manifest: "Manifest | None") -> dict[str, str]:
    from dosel.model.signature import key_of

    known: dict[str, str | None] = {"MLflow run": version.run_id}
    if version.attested:
        names = {
            "family": tags.FAMILY,
            "training rows": tags.ROWS_TRAIN,
            "held-out rows": tags.ROWS_TEST,
            "split": tags.SPLIT_VERSION,
            ROWS_DIGEST: tags.DATA_DIGEST,
            "seed": tags.SEED,
            "code": tags.CODE_VERSION,
            "commit": tags.COMMIT,
            "lock file (SHA-256)": tags.LOCK,
            "model (SHA-256)": tags.MODEL_DIGEST,
        }
        known |= {name: version.tags.get(tag) for name, tag in names.items()}
        known["batches"] = ", ".join(map(str, json.loads(version.tags.get(tags.BATCH_IDS, "[]"))))
        best = {name.removeprefix("best_"): v for name, v in version.params.items() if name.startswith("best_")}
        known["parameters"] = ", ".join(f"{name}={value}" for name, value in sorted(best.items()))
    if manifest is not None:
        known["manifest (SHA-256)"] = manifest.digest
        known["signed by the key"] = key_of(manifest.signature or "")
    return {name: value for name, value in known.items() if value}
