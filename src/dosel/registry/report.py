"""The gate's report on a version: its rules, their figures and the decision."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dosel.registry.looks import Look


@dataclass(frozen=True)
class Rule:
    """One rule of the gate: whether it holds, and the figures in words and as numbers."""

    name: str
    holds: bool
    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The gate's decision: `passed` if every rule holds."""

    rules: tuple[Rule, ...]
    reason: str
    challenger: int
    champion: int | None
    rows: int
    split: str
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    backend_tags: Mapping[str, str] = field(default_factory=dict)
    look: Look | None = None
    """None in reports of an older dosel, which counted no looks."""
    recalled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The challenger's held-out rows by class code: how many it answered correctly, and how many there are."""

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The interval of each of the challenger's metrics, with the declared confidence."""
    groups: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    """By declared group and value: how many of its held-out rows the challenger answered correctly, and how many."""

    @property
    def passed(self) -> bool:
        return all(rule.holds for rule in self.rules)

    def document(self) -> dict[str, Any]:
        """The report as JSON values, for `gate.json` and the ledger."""
        return {"passed": self.passed} | asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Report":
        known = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        look = known.get("look")
        rules = tuple(Rule(**rule) for rule in document["rules"])
        return cls(**known | {"rules": rules, "look": Look(**look) if look else None})

    @property
    def table(self) -> str:
        """The verdict and the rules as a Markdown table."""
        verdict = "Passed the gate" if self.passed else "Candidate, not promoted"
        lines = [f"| {rule.name} | {'holds' if rule.holds else '**fails**'} | {rule.words} |" for rule in self.rules]
        look = [self.look.describe(), ""] if self.look else []
        return "\n".join(
            [f"{verdict}: {self.reason}.", "", *look, "| rule | result | figures |", "|---|---|---|", *lines]
        )
