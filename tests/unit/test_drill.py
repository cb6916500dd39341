"""The record of the drill: which steps the API's events and health show as done."""

from pathlib import Path
from typing import Any

from dosel.embedded.drill_record import STEPS, Record


def event(number: int, kind: str, incident: str = "") -> dict[str, Any]:
    return {"id": number, "kind": kind, "incident": incident, "what": f"event {number}", "evidence": "<figures>"}


def health(version: int, state: str) -> dict[str, Any]:
    accuracy = {"promised": {"rate": 0.7}, "live": {"rate": 0.2}, "low": 0.1, "high": 0.3}
    return {"version": version, "state": state, "labels": 800, "findings": [accuracy]}


def test_steps_are_recorded_in_order() -> None:
    record = Record()
    first, harm, second = event(1, "promoted"), event(2, "harmed", "harm of 1"), event(3, "promoted")
    record.add([first], health(1, "as promised"))
    assert list(record.steps) == ["promoted"]
    record.add([harm, first], health(1, "harmed"))
    assert list(record.steps) == ["promoted", "harmed"]
    record.messages["harm of 1"] = 12.0
    record.add([harm, first], health(1, "harmed"))
    assert list(record.steps) == ["promoted", "harmed", "message"]
    record.add([second, harm, first], health(2, "unknown"))
    assert record.missing() == [STEPS["recovered"]]
    record.add([second, harm, first], health(2, "as promised"))
    assert record.missing() == []


def test_with_a_shadow_the_new_version_is_proven_first() -> None:
    record = Record(shadow=True)
    first, harm, shadow, second = (
        event(1, "promoted"),
        event(2, "harmed", "h"),
        event(3, "shadow"),
        event(4, "promoted"),
    )
    record.messages["h"] = 12.0
    record.add([shadow, harm, first], health(1, "harmed"))
    assert list(record.steps) == ["promoted", "harmed", "message", "shadow"]
    for _ in range(2):
        record.add([second, shadow, harm, first], health(2, "as promised"))
    assert list(record.steps)[-2:] == ["proven", "recovered"]
    assert record.missing() == []


def test_good_health_before_any_harm_is_no_recovery() -> None:
    record = Record()
    record.add([event(2, "promoted"), event(1, "promoted")], health(2, "as promised"))
    assert list(record.steps) == ["promoted"]


def test_each_event_is_printed_once_oldest_first() -> None:
    record = Record()
    lines = record.add([event(2, "refused"), event(1, "promoted")], health(1, "unknown"))
    assert lines == ["promoted: event 1", "refused: event 2", f"✓ {STEPS['promoted']}"]
    assert record.add([event(2, "refused"), event(1, "promoted")], health(1, "unknown")) == []


def test_the_page_shows_steps_versions_events_and_missing_steps(tmp_path: Path) -> None:
    record = Record()
    record.add([event(2, "harmed", "harm of 1"), event(1, "promoted")], health(1, "harmed"))
    record.messages["harm of 1"] = 12.0
    page = record.write(tmp_path / "drill.html").read_text()
    for text in (STEPS["harmed"], f"not seen: {STEPS['recovered']}", "version 1", "0.700", "&lt;figures&gt;", "12 s"):
        assert text in page
