"""Bodies of answers."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from dosel.usecases import DEFAULT, Feature, Number, UseCase

if TYPE_CHECKING:
    from dosel.registry import ModelVersion


class ModelReference(BaseModel):
    """Which model answered."""

    name: str = Field(description="The registered model.", examples=[DEFAULT.model_name])
    version: int = Field(description="Its version.", examples=[3])
    run_id: str = Field(description="The MLflow run that trained it.", examples=["0f9a4c1de0b94c6c8d3b7a52f1e6c0aa"])


class Answer(BaseModel):
    """The answer for one row."""

    prediction: int = Field(description="Code of the most probable class.", examples=[2])
    label: str = Field(description="What that class is called.", examples=["Lodgepole Pine"])
    probabilities: dict[str, float] = Field(
        description="Each class the model knows, with its probability; they add up to 1.",
        examples=[{"Spruce/Fir": 0.2, "Lodgepole Pine": 0.8}],
    )
    model: ModelReference


class RowAnswer(BaseModel):
    """The answer for one row of a batch."""

    prediction: int = Field(description="Code of the most probable class.")
    label: str = Field(description="What that class is called.")
    probabilities: dict[str, float] = Field(description="Each class the model knows, with its probability.")


class BatchAnswer(BaseModel):
    """The answers for the rows of a batch, in their order. All are one version's."""

    predictions: list[RowAnswer]
    model: ModelReference


class Gate(BaseModel):
    """What the gate decided when the version asked to enter Production."""

    verdict: str | None = Field(description="`passed` or `refused`; null if it was not judged yet.")
    reason: str | None = Field(description="The figures it rests on.")


class Lineage(BaseModel):
    """What the version was made from; null where its run does not say."""

    data_digest: str | None = Field(description="SHA-256 of the set of clean rows.")
    batch_ids: list[int] = Field(description="The batches those rows came in.")
    rows_train: int | None = Field(description="Rows it was trained on.")
    rows_test: int | None = Field(description="Rows held out, on which its metrics rest.")
    split_version: str | None = Field(description="The rule that held them out.")
    family: str | None = Field(description="Family of models.")
    code_version: str | None = Field(
        description="Version of dosel that trained it, and a digest of its source and declarations."
    )


class Version(BaseModel):
    """A registered version."""

    version: int
    run_id: str
    created_at: datetime
    in_production: bool
    stage: str = Field(description="MLflow's stage, for older clients.")
    aliases: list[str]
    metrics: dict[str, float]
    params: dict[str, str]
    gate: Gate
    lineage: Lineage

    @classmethod
    def of(cls, version: "ModelVersion") -> "Version":
        tags = {name.removeprefix("dosel."): value for name, value in version.tags.items()}
        return cls(
            version=version.version,
            run_id=version.run_id,
            created_at=version.created_at,
            in_production="production" in version.aliases,
            stage=version.stage,
            aliases=list(version.aliases),
            # JSON has no NaN, which a metric of MLflow can be.
            metrics={name: value for name, value in version.metrics.items() if math.isfinite(value)},
            params=dict(version.params),
            gate=Gate(verdict=tags.get("gate"), reason=tags.get("gate_reason")),
            lineage=Lineage(
                data_digest=tags.get("data_digest"),
                batch_ids=_parsed(tags, "batch_ids") or [],
                rows_train=_parsed(tags, "rows_train"),
                rows_test=_parsed(tags, "rows_test"),
                split_version=tags.get("split_version"),
                family=tags.get("family"),
                code_version=tags.get("code_version"),
            ),
        )


def _parsed(tags: Mapping[str, str], name: str) -> Any:
    return json.loads(tags[name]) if name in tags else None


class Loaded(BaseModel):
    """A version this process answers with."""

    model: str = Field(description="The registered model.")
    version: int
    run_id: str
    loaded_at: datetime = Field(description="Since when it answers.")
    form: Literal["onnx", "scikit-learn"] = Field(
        description="What computes its answers: ONNX Runtime, seen to agree with the model, or the model itself."
    )
    fallback: str | None = Field(description="Why that is not ONNX Runtime; null if it is.")
    stale: bool = Field(description="Whether the registry could not confirm that it is in Production.")


class Model(BaseModel):
    """A registered model with its versions, newest first."""

    name: str
    use_case: str
    loaded: Loaded | None = Field(description="What this process answers with; null while nothing does.")
    versions: list[Version]
    trouble: list[str] = Field(description="What went wrong around Production since it was last moved.")


class Models(BaseModel):
    models: list[Model]


class ModelNames(BaseModel):
    modelos: list[str] = Field(description="Names that `model` of `POST /predict` takes.")


class ModelInfo(BaseModel):
    """What is in Production, and what this process answers with: the same, but for the seconds after a promotion."""

    use_case: str
    name: str
    production: Version
    since: datetime | None = Field(
        description="When it entered Production, by the ledger; null if that cannot be read."
    )
    family: Version | None = Field(
        description="The newest version of the family that `model` names; null if it names none."
    )
    loaded: Loaded
    read_at: datetime = Field(description="When `production` was read; not now, if MLflow cannot be reached.")


Value = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""A number that stays whole if it is."""


class NumberInfo(BaseModel):
    kind: Literal["number"] = "number"
    name: str
    title: str
    unit: str = Field(description="Empty for a number without one.")
    low: Value = Field(description="Smallest acceptable value.")
    high: Value = Field(description="Largest acceptable value.")
    whole: bool = Field(description="Whether fractions are refused.")
    optional: bool = Field(description="Whether a row may do without it, as null or left out.")
    example: Value
    help: str
    expected: str = Field(description="The above in words, as errors say it.")


class ChoiceInfo(BaseModel):
    value: str
    title: str


class CategoryInfo(BaseModel):
    kind: Literal["category"] = "category"
    name: str
    title: str
    choices: list[ChoiceInfo]
    optional: bool = Field(description="Whether a row may do without it, as null or left out.")
    example: str
    help: str
    expected: str = Field(description="The choices in words, as errors say it.")


class TargetInfo(BaseModel):
    name: str
    title: str
    labels: dict[int, str] = Field(description="What each code of a prediction is called.")


class UseCaseInfo(BaseModel):
    """Everything a form needs."""

    name: str
    title: str
    summary: str
    default: bool = Field(description="Whether the bare `POST /predict` means this one.")
    path: str = Field(description="Where a row of it is predicted.")
    model_name: str = Field(description="Its registered model.")
    families: list[str] = Field(description="Families of models that `?model=` takes: the newest version of each.")
    features: list[Annotated[NumberInfo | CategoryInfo, Field(discriminator="kind")]]
    target: TargetInfo
    example: dict[str, Value | str] = Field(description="A real row, ready to be sent.")

    @classmethod
    def of(cls, use_case: UseCase, default: bool) -> "UseCaseInfo":
        return cls(
            name=use_case.name,
            title=use_case.title,
            summary=use_case.summary,
            default=default,
            path=f"/predict/{use_case.name}",
            model_name=use_case.model_name,
            families=[family.name for family in use_case.families],
            features=[_info(feature) for feature in use_case.features],
            target=TargetInfo(
                name=use_case.target.name, title=use_case.target.title, labels=dict(use_case.target.labels)
            ),
            example=use_case.example,
        )


def _info(feature: Feature) -> NumberInfo | CategoryInfo:
    info = NumberInfo if isinstance(feature, Number) else CategoryInfo
    return info.model_validate(feature, from_attributes=True)


class UseCases(BaseModel):
    use_cases: list[UseCaseInfo]


class Readiness(BaseModel):
    """Whether one use case has a model that answers."""

    ready: bool
    version: int | None
    waiting_for: str | None = Field(description="What keeps it from following Production; null while it does.")


class Ready(BaseModel):
    use_cases: dict[str, Readiness]
    stale: list[str] = Field(
        description="Use cases whose model answers although the registry could not confirm that it is in Production."
    )


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Greeting(BaseModel):
    message: str
    docs: str = Field(description="Where to read on.")


class Batch(BaseModel):
    """A line of the batch ledger; `rows_received` is the sum of the other three counts."""

    id: int
    stream: str = Field(description="Which of the source's sequences.", examples=["group 6"])
    epoch: str = Field(description="Changes when the source starts its numbering over.")
    number: int = Field(description="Its number within the epoch.")
    source: str
    received_at: datetime
    rows_received: int
    rows_clean: int
    rows_refused: int = Field(description="Not acceptable: see the quarantine.")
    rows_duplicate: int = Field(description="Stored before, or repeated within the batch.")
    digest: str = Field(description="SHA-256 of the rows as received.")


class Batches(BaseModel):
    """The newest batches, and the totals of all."""

    count: int
    rows_received: int
    rows_clean: int
    rows_refused: int
    rows_duplicate: int
    batches: list[Batch]


class Refused(BaseModel):
    """A row in quarantine."""

    batch_id: int
    stream: str
    epoch: str
    number: int = Field(description="The batch's number within the epoch.")
    row_no: int = Field(description="Its position in the batch, from 0.")
    reason: str = Field(examples=["Slope: a whole number from 0 to 90 ° expected, got '91'"])
    values: dict[str, str | None] = Field(description="What was received, by column; null where there was nothing.")
    surplus: str | None = Field(description="JSON list of what it holds beyond the declared columns.")


class Quarantine(BaseModel):
    rows: list[Refused]
