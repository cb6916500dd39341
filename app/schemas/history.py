"""Bodies of the promotion ledger, promotions and rollbacks."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.schemas.models import HoldoutInfo, Version
from dosel.closed import HIDDEN, shown, shown_files
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already answer /healthz.
    from dosel.registry.approvals import Request
    from dosel.registry.ledger import Promotion
    from dosel.registry.manifests import Manifest
    from dosel.registry.notes import Note


class RuleInfo(BaseModel):
    """One rule of the gate."""

    name: str
    holds: bool
    words: str = Field(description="The figures behind the rule's result, as a sentence.")
    figures: dict[str, Any]


class LookInfo(BaseModel):
    """Which look at the holdout a comparison was."""

    number: int = Field(description="Counts the looks at the holdout of one split, from 1.")
    of: int = Field(description="Looks after which the holdout is rotated.")
    seen: float = Field(description="How often a held-out row was looked at before, on average.")
    share: float = Field(description="Share of the error probability and tolerance that this look could spend.")


class GateInfo(BaseModel):
    """The gate's report."""

    passed: bool
    reason: str
    champion: int | None = Field(description="The champion's version; null if there was none to compare with.")
    rows: int = Field(description="Number of held-out rows that both were scored on.")
    split: str = Field(description="Version of the split.")
    look: LookInfo | None = Field(None, description="Null if nothing was compared, or looks were not counted yet.")
    rules: list[RuleInfo]
    metrics: dict[str, dict[str, float]] = Field(description="Metrics of the challenger and of Production.")
    latency_ms: dict[str, float] = Field(description="Median time for one row; not judged.")

    @classmethod
    def of(cls, use_case: UseCase, report: Any) -> "GateInfo | None":
        if not report:
            return None
        return cls.model_validate(
            report | {part: shown(use_case, report[part]) for part in ("reason", "rows", "rules", "metrics")}
        )


class LedgerEntry(BaseModel):
    """One change of Production."""

    sequence: int
    at: datetime
    from_version: int | None
    to_version: int
    kind: Literal["gate", "shadow", "manual", "rollback", "followed"]
    actor: str
    reason: str
    run_id: str | None = Field(description="The run of `to_version`.")
    data_digest: str | None
    manifest_digest: str | None
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    gate: GateInfo | None

    @classmethod
    def of(cls, use_case: UseCase, entry: "Promotion") -> "LedgerEntry":
        evidence = entry.evidence
        derived = {
            "run_id": evidence.to_run,
            "reason": shown(use_case, entry.reason),
            "metrics_before": shown(use_case, evidence.metrics_before),
            "metrics_after": shown(use_case, evidence.metrics_after),
            "gate": GateInfo.of(use_case, evidence.gate),
            "data_digest": evidence.data_digest if use_case.expose_training_rows else HIDDEN,
        }
        return cls.model_validate(vars(entry) | vars(evidence) | derived)


def for_export(use_case: UseCase, entry: "Promotion") -> "Promotion":
    """The entry for a reader of the API: with the figures that `LedgerEntry` has."""
    if use_case.expose_training_rows:
        return entry
    public = LedgerEntry.of(use_case, entry)
    before, after = public.metrics_before, public.metrics_after
    gate = public.gate.model_dump() if public.gate else None
    evidence = replace(
        entry.evidence, metrics_before=before, metrics_after=after, gate=gate, data_digest=public.data_digest
    )
    return replace(entry, reason=public.reason, evidence=evidence)


class NoteInfo(BaseModel):
    """A problem that did not change Production."""

    at: datetime
    after: int = Field(description="Sequence of the last entry at that time; 0 for none.")
    text: str

    @classmethod
    def of(cls, use_case: UseCase, note: "Note") -> "NoteInfo":
        return cls(at=note.at, after=note.sequence, text=shown(use_case, note.text))


class History(BaseModel):
    """The promotion ledger, oldest entry first. The last entry names the version in Production (at the time `at`)."""

    model: str
    at: datetime | None = Field(description="Only entries up to this time; null means all.")
    production: int | None = Field(description="The version in Production at that time.")
    entries: list[LedgerEntry]
    notes: list[NoteInfo]
    holdout: HoldoutInfo = Field(description="The holdout now.")


class ManifestInfo(BaseModel):
    """The digests of a version's files."""

    digest: str
    at: datetime | None
    files: dict[str, str] = Field(description="SHA-256 by path; of a closed use case, those of rows are hidden.")

    @classmethod
    def of(cls, use_case: UseCase, manifest: "Manifest | None") -> "ManifestInfo | None":
        if manifest is None:
            return None
        return cls(digest=manifest.digest, at=manifest.at, files=shown_files(use_case, manifest.files))


class VersionDetail(BaseModel):
    """A version and its lineage."""

    model: str
    use_case: str
    version: Version
    manifest: ManifestInfo | None = Field(description="Null if the version has none: then it is never loaded.")
    gate: GateInfo | None
    in_production: list[LedgerEntry] = Field(description="The ledger's entries that put this version into Production.")


class ApprovalRequest(BaseModel):
    """A promotion that waits for approvals, each by a person with a key of their own."""

    number: int = Field(description="Counts the model's requests from 1.")
    version: int
    kind: Literal["manual", "gate", "shadow"] = Field(description="Who asked: a person, the gate, or live rows.")
    actor: str
    reason: str
    at: datetime
    expires_at: datetime
    after: int = Field(
        description="Sequence of the ledger's last entry when the request was made; a newer entry voids the request."
    )
    manifest_digest: str
    gate_digest: str = Field(description="SHA-256 of the gate's verdict; empty if it did not judge.")
    people: int = Field(description="How many people must agree.")
    approved_by: list[str]

    @classmethod
    def of(cls, use_case: UseCase, request: "Request", names: Mapping[str, str]) -> "ApprovalRequest":
        values = vars(request.subject) | vars(request)
        derived = {"after": request.subject.sequence, "people": request.people, "approved_by": request.holders(names)}
        derived["reason"] = shown(use_case, request.reason)
        return cls.model_validate(values | derived)


class ApprovalRequests(BaseModel):
    """The requests that people can still approve, oldest first."""

    model: str
    requests: list[ApprovalRequest]


Reason = Annotated[str, Field(min_length=1, max_length=2000, description="Why, for the record.")]


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        # Python counts true as 1.
        raise PydanticCustomError("version_number", "Input should be a valid integer")
    return value


VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1)]

GivenVersion = Annotated[VersionNumber, BeforeValidator(_no_truth_value)]
"""A version's number in a JSON body."""


class Promote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: GivenVersion = Field(description="The version to put into Production.", examples=[3])
    reason: Reason


class RollBack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: GivenVersion | None = Field(None, description="A version that was in Production; by default the previous one.")
    reason: Reason = "rolled back over HTTP"
