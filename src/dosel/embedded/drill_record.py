"""What the drill has seen: its steps, events, messages and health; and the page about them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

STEPS = {
    "promoted": "a first version is in Production",
    "harmed": "harm is proven",
    "message": "a signed message about it arrives",
    "shadow": "a version trained after the harm answers in shadow",
    "proven": "live rows prove it better, and it enters Production",
    "retrained": "a version trained after the harm enters Production",
    "recovered": "the harm is gone: the new version is as promised",
}

WITH_SHADOW, WITHOUT = ("shadow", "proven"), ("retrained",)
"""Steps of a drill in which challengers answer in shadow first, and of the others."""

Document = Mapping[str, Any]


@dataclass
class Record:
    """What was seen so far.

    Attributes:
        shadow: whether challengers answer in shadow first.
        steps: the seconds after which each step was seen, by its key in `STEPS`.
        events: by id, the seconds at which they were seen, and the API's documents.
        messages: the seconds after which a message arrived, by incident.
        health: the API's last document for each version in Production, by version.
    """

    shadow: bool = False
    began: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict)
    events: dict[int, tuple[float, Document]] = field(default_factory=dict)
    messages: dict[str, float] = field(default_factory=dict)
    health: dict[int, Document] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def expected(self) -> list[str]:
        """The keys of the steps, in their order."""
        others = WITHOUT if self.shadow else WITH_SHADOW
        return [step for step in STEPS if step not in others]

    def missing(self) -> list[str]:
        """The steps that were not seen yet, in words."""
        return [STEPS[step] for step in self.expected if step not in self.steps]

    def add(self, events: Sequence[Document], health: Document) -> list[str]:
        """Take in what the API says now; return a line for each new event and step."""
        new = [event for event in reversed(events) if event["id"] not in self.events]
        self.events |= {event["id"]: (self.seconds, event) for event in new}
        self.health[health["version"]] = health
        reached = [step for step in self.expected if step not in self.steps and self._happened(step, health)]
        self.steps |= dict.fromkeys(reached, self.seconds)
        return [f"{event['kind']}: {event['what']}" for event in new] + [f"✓ {STEPS[step]}" for step in reached]

    def _happened(self, step: str, health: Document) -> bool:
        harm = next((event for _, event in self._of_kind("harmed")), None)
        if step == "promoted" or harm is None:
            return step == "promoted" and bool(self._of_kind("promoted"))
        if step == "message":
            return harm["incident"] in self.messages
        if step == "recovered":
            return not {"retrained", "proven"}.isdisjoint(self.steps) and health["state"] == "as promised"
        kind = {"shadow": "shadow", "retrained": "promoted", "proven": "promoted"}.get(step)
        return kind is None or any(event["id"] > harm["id"] for _, event in self._of_kind(kind))

    def _of_kind(self, kind: str) -> list[tuple[float, Document]]:
        return [(seen, event) for _, (seen, event) in sorted(self.events.items()) if event["kind"] == kind]

    def write(self, file: Path) -> Path:
        """Write the page and return its path."""
        steps = "".join(
            f"<tr><td>{self.steps[step]:.0f} s</td><td>{STEPS[step]}</td></tr>"
            if step in self.steps
            else f"<tr><td>–</td><td>not seen: {STEPS[step]}</td></tr>"
            for step in self.expected
        )
        events = "".join(
            f"<tr><td>{seen:.0f} s</td><td>{escape(event['kind'])}</td><td>{escape(event['what'])}<br>"
            f"<small>{escape(event['evidence'])}</small></td><td>{self._message(event)}</td></tr>"
            for seen, event in self.events.values()
        )
        versions = "".join(_version_row(health) for _, health in sorted(self.health.items()))
        file.write_text(PAGE.format(steps=steps, events=events, versions=versions))
        return file

    def _message(self, event: Document) -> str:
        arrived = self.messages.get(event["incident"])
        return "–" if arrived is None else f"{arrived:.0f} s"


def _version_row(health: Document) -> str:
    accuracy = health["findings"][0]
    promised = accuracy["promised"]["rate"] if accuracy["promised"] else None
    live = accuracy["live"]["rate"]
    figures = ("–" if value is None else f"{value:.3f}" for value in (promised, live))
    bounds = f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" if health["labels"] else "–"
    cells = (f"version {health['version']}", *figures, bounds, f"{health['labels']:,}", health["state"])
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>dosel drill</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }}
small {{ color: #555; }}
</style>
<h1>What happened in the drill</h1>
<p>From the third batch on, the data API exchanged the labels of the two most frequent classes. All times are since the
start.</p>
<table>{steps}</table>
<h2>Versions in Production</h2>
<table>
<tr><th></th><th>promised accuracy</th><th>live accuracy</th><th>bounds</th><th>labelled rows</th><th>state</th></tr>
{versions}</table>
<h2>Events</h2>
<table><tr><th>seen</th><th>kind</th><th>what</th><th>message</th></tr>{events}</table>
</html>
"""
