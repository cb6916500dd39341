"""Bodies that describe registered models and their versions."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from dosel.closed import HIDDEN, coarse, shown
from dosel.model.facts import BEFORE, HOLDOUT, held_out
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.looks import Holdout
    from dosel.registry.store import ModelVersion


CHALLENGER = "gate_challenger_"
"""Prefix of the metrics that the gate measured."""


class Gate(BaseModel):
    """The gate's decision on a version."""

    verdict: str | None = Field(description="`passed` or `refused`; null if not judged yet.")
    reason: str | None = Field(description="The figures behind the decision.")


class Lineage(BaseModel):
    """The origin of a version; null where its run has no tag."""

    data_digest: str | None = Field(description="SHA-256 of the set of clean rows; hidden for a closed use case.")
    batch_ids: list[int] = Field(description="Ids of the batches that contain those rows.")
    rows_train: int | None = Field(description="Number of training rows.")
    rows_test: int | None = Field(description="Number of held-out rows, on which the metrics rest.")
    split_version: str | None = Field(description="Version of the split.")
    family: str | None = Field(description="Family of the model.")
    code_version: str | None = Field(
        description="Version of dosel that trained it, and a digest of its source and declarations."
    )


class Version(BaseModel):
    """A registered version."""

    version: int
    run_id: str
    experiment_id: str = Field(description="The experiment of the run in MLflow; empty if MLflow does not say.")
    created_at: datetime
    in_production: bool
    stage: str = Field(description="MLflow's stage, for older clients.")
    aliases: list[str]
    metrics: dict[str, float] = Field(
        description="`holdout_…`: on the held-out rows, also as `test_…` for older clients; `gate_…`: what the gate "
        "measured."
    )
    params: dict[str, str]
    gate: Gate
    lineage: Lineage

    @classmethod
    def of(cls, use_case: UseCase, version: "ModelVersion", in_production: bool) -> "Version":
        """The version with the ledger's figures; MLflow's own figures, which anybody there can edit, are left out."""
        tags = {name.removeprefix("dosel."): value for name, value in version.tags.items()}
        known = tags if version.attested else {}
        lineage: dict[str, Any] = {name: known.get(name) for name in Lineage.model_fields}
        if not use_case.expose_training_rows:
            counts = {name: coarse(int(lineage[name])) for name in ("rows_train", "rows_test") if lineage[name]}
            lineage |= {"data_digest": HIDDEN} | counts
        derived = {
            "in_production": in_production,
            "metrics": shown(use_case, _metrics(version)),
            "params": version.params if version.attested else {},
            # The gate's tags are always those of the ledger's verdict.
            "gate": Gate(verdict=tags.get("gate"), reason=shown(use_case, tags.get("gate_reason"))),
            "lineage": lineage | {"batch_ids": json.loads(known.get("batch_ids", "[]"))},
        }
        return cls.model_validate(vars(version) | derived)


def _metrics(version: "ModelVersion") -> dict[str, float]:
    # JSON has no NaN, which a metric of MLflow can be.
    finite = {name: value for name, value in version.metrics.items() if math.isfinite(value)}
    if version.attested:
        return finite | _for_older_clients(held_out(finite))
    # Of a version whose training an older dosel did not record, the ledger has what the gate measured.
    measured = {name.removeprefix(CHALLENGER): v for name, v in finite.items() if name.startswith(CHALLENGER)}
    return {f"{HOLDOUT}{name}": value for name, value in measured.items()} | _for_older_clients(measured)


def _for_older_clients(figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{BEFORE}{name}": value for name, value in figures.items()}


class Loaded(BaseModel):
    """The version that this process has loaded."""

    model: str = Field(description="The registered model.")
    version: int
    run_id: str
    loaded_at: datetime = Field(description="Time of loading.")
    form: Literal["onnx", "scikit-learn"] = Field(
        description="The backend: ONNX Runtime if it passed the parity check, otherwise scikit-learn."
    )
    fallback: str | None = Field(description="The reason if scikit-learn answers, otherwise null.")
    stale: bool = Field(description="True if the registry could not confirm that it is in Production.")


class Model(BaseModel):
    """A registered model with its versions, newest first."""

    name: str
    use_case: str
    loaded: Loaded | None = Field(description="The loaded version; null while none is loaded.")
    versions: list[Version]
    trouble: list[str] = Field(description="Problems that were noted since Production last changed.")
    waiting_for: str | None = Field(description="What keeps the API from following Production; null while it follows.")


class Models(BaseModel):
    models: list[Model]


class ModelNames(BaseModel):
    modelos: list[str] = Field(description="Names for the field `model` of `POST /predict`.")


class HoldoutInfo(BaseModel):
    """How often the gate has compared versions on the holdout, and how often it still may."""

    epoch: int = Field(description="How often the holdout was rotated.")
    looks: int = Field(description="Comparisons on this holdout.")
    left: int = Field(description="Comparisons that are left until the holdout is rotated.")

    @classmethod
    def of(cls, holdout: "Holdout") -> "HoldoutInfo":
        return cls(epoch=holdout.epoch, looks=holdout.looks, left=holdout.left)


class ModelInfo(BaseModel):
    """The version in Production and the loaded version.

    They differ shortly after a promotion, and as long as the promoted version cannot be loaded.
    """

    use_case: str
    name: str
    production: Version
    since: datetime | None = Field(
        description="When it entered Production, by the ledger; null if the ledger cannot be read."
    )
    family: Version | None = Field(
        description="The newest version of the family that `model` names; null without such a name."
    )
    loaded: Loaded
    holdout: HoldoutInfo | None = Field(description="Null if the ledger cannot be read.")
    read_at: datetime = Field(description="When `production` was read; earlier than now if MLflow cannot be reached.")
