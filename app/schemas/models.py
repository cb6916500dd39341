"""Bodies that describe registered models and their versions."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from dosel.registry.store import ModelVersion


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
