"""No GET route shows an exact figure about the rows of a closed use case, wherever the figure was written."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.http import store_metrics
from app.main import build_app
from app.serving.follower import ModelFollower
from dosel.db.engine import transaction
from dosel.errors import ApprovalsMissing
from dosel.monitor.harm import watch_for_harm
from dosel.monitor.health import health
from dosel.monitor.pairs import Pairs, insert_pairs
from dosel.monitor.shadow_state import states
from dosel.monitor.truths import Truths, TruthSource, TruthStore, insert_truths
from dosel.registry.approvals import Approvals, Subject
from dosel.registry.shadows import ShadowEnd, ShadowRecord
from dosel.registry.verdicts import Verdict
from dosel.usecases import ALL, Approval
from dosel.usecases.employees import EMPLOYEES
from dosel.warehouse.events import Event, EventStore
from tests.contract.conftest import Installation
from tests.contract.test_api import running, wait_until

READER, PROMOTER = "r" * 20, "p" * 20
MODEL = EMPLOYEES.model_name

SHARES = (0.8713, 0.8676, 0.7837)
PROMISED, LIVE = 4173 / 5021, 1043 / 2357
COUNTS = (1146, 4173, 5021, 2357, 3911, 1043)
TEXT = (
    "f1_macro 0.8713 against 0.8676 in Production, on the same 1,146 held-out rows; women: 4,173 of 5,021; "
    "accuracy 0.7837 on 2,357 labelled live rows; proven after 3,911 of these; 1043 more"
)
HELD_OUT = "f1_macro 0.8713 against 0.8676 in Production, on the same 1,146 held-out rows; 4,173 only it"
LABELLED = 2357

PATTERN = re.compile(
    "|".join(
        (
            *(rf"(?<![\w.,]){str(share)[:5]}\d*" for share in (*SHARES, PROMISED, LIVE)),
            *(rf"(?<![\w.,]){form}(?!\w)" for count in COUNTS for form in (str(count), f"{count:,}")),
        )
    )
)
"""Any of the figures above, a share with at least three decimals."""

QUERIES = {
    "/models/{name}/history": ("", "?format=csv"),
    "/models/{name}/versions/{version}/card": ("", "?format=md", "?format=cyclonedx"),
    "/model-info": (f"?use_case={EMPLOYEES.name}",),
    # There is only one version here: `test_comparison_api` has two.
    "/models/{name}/compare": ("?a=1&b=1",),
}


@pytest.fixture(scope="module")
def here(install: Callable[..., Installation]) -> Iterator[Installation]:
    """The exact figures in reasons, notes, verdicts, events, requests, shadows, and a proven harm."""
    with pytest.MonkeyPatch.context() as patch:
        declared = [replace(u, approval=Approval(people=2)) if u is EMPLOYEES else u for u in ALL]
        made = install(keys=f"eve:reader:{READER},ana:promoter:{PROMOTER}")
        run = made.others[EMPLOYEES.name]
        version = made.registry.register(EMPLOYEES, run)
        ledger, engine = made.registry.ledger, made.registry.ledger.engine
        ledger.add_verdict(MODEL, version.version, run, Verdict(True, HELD_OUT, report()))
        entry = made.registry.promote(version, "a test", TEXT)
        ledger.note(MODEL, TEXT)
        EventStore(engine).add(Event("incident", EMPLOYEES.name, "refused", "it was refused", TEXT, "dosel x"))
        EventStore(engine).add(Event("other", "ledgers", "audit mismatch", "a mismatch", TEXT, "dosel x"))
        label(made, entry.sequence, version.version)
        found = watch_for_harm(EMPLOYEES, made.registry, engine)
        assert found
        assert found.state == "harmed"
        now = datetime.now(UTC)
        for number in (1, 2):
            start = (MODEL, number, "challenger", 2, run, 1, entry.sequence, now, now + timedelta(days=1), "a test")
            shadow = ShadowRecord(*start, TEXT, report())  # type: ignore[arg-type]
            ledger.start_shadow(shadow)
            if number == 1:
                ledger.end_shadow(shadow, ShadowEnd("refused", "a test", TEXT, {"labels": LABELLED}))
        patch.setattr("dosel.registry.approvals.ALL", tuple(declared))
        subject = Subject(MODEL, 2, run, "1" * 64, "2" * 64, entry.sequence, "manual")
        approvals = Approvals(engine, made.settings.promote_key_names)
        with pytest.raises(ApprovalsMissing):
            approvals.admit(subject, "API key ana", TEXT, "ana")
        patch.setattr(store_metrics, "SCRAPE_SECONDS", 60.0)
        yield made


def report() -> dict[str, Any]:
    """The gate's report."""
    one, other, _ = SHARES
    held_out, right, rows, *_ = COUNTS
    return {
        "passed": True,
        "reason": HELD_OUT,
        "challenger": 1,
        "champion": None,
        "rows": held_out,
        "split": "h1-salt-0.2-abcdef12",
        "metrics": {"challenger": {"accuracy": one, "f1_macro": other}, "production": {"accuracy": other}},
        "latency_ms": {"challenger": 1.0},
        "intervals": {"accuracy": [other, one], "f1_macro": [other, one]},
        "recalled": {str(code): [right, rows] for code in EMPLOYEES.target.labels},
        "groups": {"gender": {"Female": [right, rows], "Male": [right, rows]}},
        "rules": [
            {"name": "floor", "holds": True, "words": f"{one}; required: at least {other}", "figures": {"score": one}},
            {"name": "class recall", "holds": True, "words": HELD_OUT, "figures": {"drops": {"0": other}}},
        ],
    }


def label(here: Installation, sequence: int, version: int) -> None:
    """Store labelled rows, most of them answered wrongly."""
    engine = here.registry.ledger.engine
    TruthStore(engine)
    first, second, *_ = EMPLOYEES.target.labels
    truth, answered = np.full(LABELLED, first, np.int64), np.full(LABELLED, second, np.int64)
    answered[: COUNTS[-1]] = first
    given = (EMPLOYEES.name, MODEL, sequence, version, "batch", "1", datetime.now(UTC), answered, truth)
    with transaction(engine) as connection:
        insert_truths(connection, Truths(*given))  # type: ignore[arg-type]


def leaks(here: Installation, is_open: bool, key: str) -> dict[str, set[str]]:
    """The exact figures in the answer of each path that has any."""
    use_cases = (replace(EMPLOYEES, expose_training_rows=is_open),)
    app = build_app(here.settings, ModelFollower(here.settings, use_cases), use_cases, use_cases[0])
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        found = {path: set(PATTERN.findall(text(client, path, key))) for path in paths(client)}
    return {path: figures for path, figures in found.items() if figures}


def paths(client: TestClient) -> list[str]:
    document = client.get("/openapi.json").raise_for_status().json()
    known = [path for path, calls in document["paths"].items() if "get" in calls]
    assert len(known) > 15
    return ["/metrics", *(path + query for path in known for query in QUERIES.get(path, ("",)))]


def text(client: TestClient, path: str, key: str) -> str:
    name = EMPLOYEES.name if path.startswith("/use-cases/") else MODEL
    answer = client.get(path.format(name=name, version=1), headers={"X-API-Key": key} if key else {})
    if key and "/compare" not in path:
        answer.raise_for_status()
    assert answer.status_code < 500
    # Of the other metrics, durations may be like a figure by chance.
    lines = (line for line in answer.text.splitlines() if path != "/metrics" or EMPLOYEES.name in line)
    return "\n".join(lines)


@pytest.mark.parametrize("key", ["", READER], ids=["without a key", "reader"])
def test_no_route_shows_an_exact_figure_of_a_closed_use_case(here: Installation, key: str) -> None:
    assert leaks(here, is_open=False, key=key) == {}


def test_the_same_routes_show_the_figures_of_an_open_use_case(here: Installation) -> None:
    """So the figures are where the test above looks for them."""
    assert leaks(here, is_open=True, key=READER).keys() >= {
        "/metrics",
        "/models",
        "/model-info?use_case=employees",
        "/models/{name}/history",
        "/models/{name}/history?format=csv",
        "/models/{name}/approvals",
        "/models/{name}/versions/{version}",
        *(f"/models/{{name}}/versions/{{version}}/card{query}" for query in ("", "?format=md", "?format=cyclonedx")),
        "/use-cases/{name}/health",
        "/use-cases/{name}/shadow",
        "/events",
    }


@pytest.mark.parametrize("source", ["batch", "feedback"])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_labelled_row_moves_what_is_shown_only_of_an_open_use_case(
    here: Installation, is_open: bool, source: TruthSource
) -> None:
    ledger, use_case = here.registry.ledger, replace(EMPLOYEES, expose_training_rows=is_open)

    def shown() -> tuple[str, str]:
        of_health = health(use_case, ledger, TruthStore(ledger.engine), for_readers=True)
        [of_shadow] = states(use_case, ledger, ledger.engine, for_readers=True)
        return repr(of_health and of_health.findings), repr(of_shadow.comparison)

    [shadow] = ledger.open_shadows(MODEL)
    entry = ledger.last(MODEL)
    assert entry is not None
    seen = [shown()]
    for number in range(2):
        one = np.array([number], np.int64)
        with transaction(ledger.engine) as connection:
            row = (f"{is_open} {number}", datetime.now(UTC), one, one, 1 - one)
            insert_pairs(connection, shadow, Pairs(source, *row))
            given = (EMPLOYEES.name, MODEL, entry.sequence, entry.to_version, source, *row[:-1])
            insert_truths(connection, Truths(*given))
        seen.append(shown())
    of_health, of_shadow = (len(set(figures)) for figures in zip(*seen, strict=True))
    assert (of_health, of_shadow) == ((3, 3) if is_open else (1, 1))
