"""Bodies that describe versions in shadow."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.health import TallyInfo
from app.schemas.history import Reason
from app.schemas.use_cases import Value
from app.serving.shadow_slot import ShadowSlot
from dosel.closed import HIDDEN, coarse, power_of_ten, shown
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already answer /healthz.
    from dosel.monitor.shadow_state import ShadowState
    from dosel.registry.shadows import ShadowEnd
    from dosel.warehouse.shadow_answers import Disagreement

Role = Literal["challenger", "control"]


class EvidenceInfo(BaseModel):
    """What labelled live rows show."""

    labels: int = Field(
        description="Labelled rows that were compared; of a canary, values of the challenger. Of a closed use case, "
        "this and the figures rest on whole blocks of 50 rows of labelled batches; a decision counts feedback, too."
    )
    shadow: TallyInfo
    champion: TallyInfo
    both_right: int | None = Field(
        description="Rows that both answered correctly. This and the next three are null for a canary."
    )
    only_shadow: int | None
    only_champion: int | None
    both_wrong: int | None
    e_value: float = Field(description="The evidence that the version in shadow is better, valid after every label.")
    e_against: float = Field(description="The evidence that the version in shadow is worse.")
    e_needed: float = Field(
        description="What is proof: the version is better if e_value reaches it, and worse if e_against does."
    )
    finding: Literal["better", "worse", "a class is worse"] | None = Field(description="What is proven.")

    @classmethod
    def of(cls, state: "ShadowState") -> "EvidenceInfo":
        compared, proof = state.comparison, state.comparison.proof
        mine, others = compared.only_shadow, compared.only_champion
        return cls(
            labels=compared.labels,
            shadow=TallyInfo.model_validate(compared.shadow),
            champion=TallyInfo.model_validate(compared.champion),
            both_right=None if mine is None else compared.shadow.correct - mine,
            only_shadow=mine,
            only_champion=others,
            both_wrong=None if others is None else compared.labels - compared.shadow.correct - others,
            e_value=proof.e_value,
            e_against=proof.e_against,
            e_needed=proof.e_needed,
            finding=proof.finding,
        )

    def coarse(self) -> "EvidenceInfo":
        """The evidence as readers of a closed use case see it."""
        known = self.model_dump()
        powers = {name: power_of_ten(known[name]) for name in ("e_value", "e_against")}
        return EvidenceInfo.model_validate(coarse(known) | powers | {"e_needed": self.e_needed})


SHOWN_OF_ID = 14


class DisagreementInfo(BaseModel):
    """A row that champion and shadow answered with different classes."""

    request_id: str = Field(description="The first characters of the request's id; feedback needs the whole id.")
    row: int = Field(description="The row's number in its request, from 1.")
    at: datetime
    champion: str = Field(description="Label of the champion's class.")
    shadow: str
    truth: str | None = Field(
        description="Label of the true class; null while it is unknown, and for a closed use case."
    )
    values: dict[str, Value | str | None] = Field(description=f"The row by feature; `{HIDDEN}` for a closed use case.")

    @classmethod
    def of(cls, found: "Disagreement", labels: dict[int, str], is_open: bool) -> "DisagreementInfo":
        values: dict[str, Value | str | None] = dict(found.features)
        if not is_open:
            values = {name: None if value is None else HIDDEN for name, value in values.items()}
        return cls(
            request_id=f"{found.request_id[:SHOWN_OF_ID]}…",
            row=found.row_no,
            at=found.at,
            champion=labels[found.champion],
            shadow=labels[found.shadow],
            truth=None if found.truth is None or not is_open else labels[found.truth],
            values=values,
        )


class ShadowInfo(BaseModel):
    """A version that answers the rows of the champion, too."""

    number: int = Field(description="Counts the model's shadows from 1.")
    role: Role = Field(
        description="A challenger may replace the champion; a control was in Production before, and comes back if it "
        "is proven better."
    )
    version: int
    champion: int = Field(description="The version in Production.")
    since: datetime
    until: datetime = Field(description="The deadline; without a decision by then, the champion stays.")
    reason: str
    now: str = Field(description="What was proven, or what a decision waits for.")
    loaded: bool = Field(description="Whether the API process that answers this call has loaded it.")
    waiting_for: str | None = Field(description="Why it does not answer in this process; null while it does.")
    answers: int = Field(description="Rows that both have answered.")
    dropped: int = Field(description="Sampled rows that this process had no time for, since it loaded the version.")
    share: float | None = Field(
        description="Canary: the share of the one-row requests since the start that it answered, so that clients got "
        "its answers; null for a shadow."
    )
    agreement: float | None = Field(description="Share of its newest answers with the champion's class.")
    latency_ms: float | None = Field(description="Median processor time of an answer.")
    champion_latency_ms: float | None
    evidence: EvidenceInfo
    disagreements: list[DisagreementInfo] = Field(description="The newest rows on which the two differ.")

    @classmethod
    def of(cls, state: "ShadowState", slot: ShadowSlot, different: "list[Disagreement]") -> "ShadowInfo":
        shadow, use_case = state.shadow, slot.use_case
        running, stops = slot.running.get(shadow.number), slot.ends.get(shadow.number, "")
        waiting = "" if running else "this process has not read it from the ledger yet"
        labels, is_open = dict(use_case.target.labels), use_case.expose_training_rows
        evidence, traffic = EvidenceInfo.of(state), vars(state.traffic)
        if not is_open:
            evidence, traffic = evidence.coarse(), coarse(traffic)
        return cls(
            number=shadow.number,
            role=shadow.role,
            version=shadow.version,
            champion=shadow.champion,
            since=shadow.at,
            until=shadow.ends_at,
            reason=shown(use_case, shadow.reason),
            now=state.summary if is_open else state.summary_without_figures,
            loaded=running is not None,
            waiting_for=shown(use_case, stops) or slot.waiting_for.get(shadow.number, waiting) or None,
            dropped=slot.dropped_since_loaded(shadow.number),
            evidence=evidence,
            disagreements=[DisagreementInfo.of(one, labels, is_open) for one in different],
            **traffic,
        )


class Shadows(BaseModel):
    shadows: list[ShadowInfo] = Field(description="The open shadows; at most one in each role.")


class EndShadow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Reason
    role: Role = Field("challenger", description="Which version: two may be in shadow.")


class ShadowEndInfo(BaseModel):
    """The decision that ended a shadow."""

    model_config = ConfigDict(from_attributes=True)

    outcome: str = Field(examples=["promoted"])
    at: datetime
    actor: str
    reason: str
    evidence: dict[str, Any] = Field(description="What live rows showed.")

    @classmethod
    def of(cls, use_case: UseCase, end: "ShadowEnd") -> "ShadowEndInfo":
        evidence = end.evidence if use_case.expose_training_rows else coarse(end.evidence)
        return cls.model_validate(vars(end) | {"reason": shown(use_case, end.reason), "evidence": evidence})
