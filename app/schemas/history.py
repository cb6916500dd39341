"""Bodies of what the ledger tells, and of what moves Production."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.models import Version

if TYPE_CHECKING:
    # What takes seconds to import, in which the app can already say that it is alive.
    from dosel.registry.ledger import Note, Promotion
    from dosel.registry.manifests import Manifest


class RuleInfo(BaseModel):
    """One rule of the gate."""

    name: str
    holds: bool
    words: str = Field(description="The figures it rests on.")
    figures: dict[str, Any]


class GateInfo(BaseModel):
    """What the gate found."""

    passed: bool
    reason: str
    champion: int | None = Field(description="The version it was compared with; null if nothing was in Production.")
    rows: int = Field(description="Held-out rows both were scored on.")
    split: str = Field(description="The rule that held them out.")
    rules: list[RuleInfo]
    metrics: dict[str, dict[str, float]] = Field(description="Of the challenger and of what was in Production.")
    latency_ms: dict[str, float] = Field(description="Median time for one row, which is not judged.")

    @classmethod
    def of(cls, report: Any) -> "GateInfo | None":
        return cls.model_validate(report) if report else None


class LedgerEntry(BaseModel):
    """One move of Production."""

    sequence: int
    at: datetime
    from_version: int | None
    to_version: int
    kind: Literal["gate", "manual", "rollback", "followed"]
    actor: str
    reason: str
    run_id: str | None = Field(description="The run of `to_version`.")
    data_digest: str | None
    manifest_digest: str | None
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    gate: GateInfo | None

    @classmethod
    def of(cls, entry: "Promotion") -> "LedgerEntry":
        values = vars(entry) | vars(entry.evidence)
        return cls.model_validate(values | {"run_id": entry.evidence.to_run, "gate": GateInfo.of(values["gate"])})


class NoteInfo(BaseModel):
    """Something that went wrong around Production without moving it."""

    at: datetime
    after: int = Field(description="Sequence of the entry that was the last one then; 0 for none.")
    text: str

    @classmethod
    def of(cls, note: "Note") -> "NoteInfo":
        return cls(at=note.at, after=note.sequence, text=note.text)


class History(BaseModel):
    """What was in Production when, oldest first; the last entry is what is, or at the time asked for was, there."""

    model: str
    at: datetime | None = Field(description="Up to when; null for now.")
    production: int | None = Field(description="The version in Production then.")
    entries: list[LedgerEntry]
    notes: list[NoteInfo]


class ManifestInfo(BaseModel):
    """What a version's files were when it was registered."""

    digest: str
    at: datetime | None
    files: dict[str, str] = Field(description="SHA-256 by path.")

    @classmethod
    def of(cls, manifest: "Manifest | None") -> "ManifestInfo | None":
        return cls(digest=manifest.digest, at=manifest.at, files=dict(manifest.files)) if manifest else None


class VersionDetail(BaseModel):
    """A version and all it came from."""

    model: str
    use_case: str
    version: Version
    manifest: ManifestInfo | None = Field(description="Null if nobody vouched for it: then it is never loaded.")
    gate: GateInfo | None
    in_production: list[LedgerEntry] = Field(description="The entries of the ledger that put it into Production.")


Reason = Annotated[str, Field(min_length=1, max_length=2000, description="Why, for the record.")]


class Promote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, description="The version to put into Production.", examples=[3])
    reason: Reason


class RollBack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: int | None = Field(None, ge=1, description="A version that was in Production; left out: the one before.")
    reason: Reason = "rolled back over HTTP"
