"""What the views of the page show, with a stand-in for the HTTP transport of their API."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from dosel.client import Client
from dosel.errors import ServiceError
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from ui import comparison, what_if
from ui import view as views
from ui.explain import LINE
from ui.text import COUNTED
from ui.view import Api, View

PROBLEM = {"Content-Type": "application/problem+json"}
AWAY = "the registry: MLflow cannot be reached (refused); is it running?"
AT = "2026-11-27T20:55:14+00:00"

VERSION = {
    "version": 1,
    "metrics": {"holdout_accuracy": 0.9},
    "lineage": {"rows_train": 100, "rows_test": 20, "family": "forest"},
    "gate": {"reason": "accuracy 1.0000; no champion to compare with", "verdict": "promoted"},
    "experiment_id": "1",
    "run_id": "abc",
    "created_at": AT,
    "in_production": True,
}
INFO = {
    "name": "penguins_species",
    "production": VERSION,
    "since": AT,
    "loaded": {"version": 1, "loaded_at": AT, "stale": False},
}
USE_CASE = {
    "name": "penguins",
    "model_name": "penguins_species",
    "target": {"title": "Species", "labels": {"0": "Adelie", "1": "Gentoo"}},
    "features": [],
}


BATCH = {
    "id": 1,
    "stream": "group 6",
    "epoch": "e" * 64,
    "number": 1,
    "source": "http://data.test",
    "received_at": AT,
    "rows_received": 20,
    "rows_clean": 19,
    "rows_refused": 1,
    "rows_duplicate": 0,
    "refused_share": 0.05,
    "duplicate_share": 0.0,
    "digest": "d" * 64,
}
REFUSED = {
    "stream": "group 6",
    "number": 1,
    "row_no": 3,
    "reason": "bill: expected more",
    "values": {"bill": "1"},
}
COUNTS = {name: BATCH[name] for name in ("rows_received", "rows_clean", "rows_refused", "rows_duplicate")}
DATA = {
    "/use-cases/penguins/batches": COUNTS | {"count": 1, "batches": [BATCH], "refused": []},
    "/use-cases/penguins/quarantine": {"rows": [REFUSED]},
}


class Script:
    """A transport that answers each path with its JSON, and every other one with 503."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        found = self._answers.get(request.url.path)
        if found is None:
            return httpx.Response(503, json={"detail": AWAY}, headers=PROBLEM)
        return httpx.Response(200, json=found)


def view_of(answers: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> View:
    transport = httpx.MockTransport(Script(answers))
    monkeypatch.setattr(views, "_client", lambda url, key: Client(url, attempts=1, transport=transport))
    views._kept.clear()
    return View(Api("http://api.test", ""), USE_CASE, Settings())


def shown(script: Any, *arguments: Any) -> AppTest:
    test = AppTest.from_function(script, args=arguments, default_timeout=60).run()
    assert not test.exception, test.exception
    return test


def production(view: "View") -> None:
    # Streamlit runs the source of this function as a script, without the module's imports.
    from ui import production

    production.show(view)


def models(view: "View") -> None:
    from ui import kept, models

    kept.recognise()
    models.show(view)


def data(view: "View") -> None:
    from ui import data

    data.show(view)


def the_answer(view: "View", stale: bool) -> None:

    from ui import answer, kept
    from ui.form import Typed

    kept.recognise()
    probabilities = {"Adelie": 0.9, "Gentoo": 0.1}
    model = {"name": "penguins_species", "version": 1}
    found = {"model": model, "label": "Adelie", "prediction": 0, "probabilities": probabilities, "stale": stale}
    kept.kept("answers")[view.name] = answer.Asked({}, "", found)
    answer.show(view, Typed({}, "", {}, sent=False), True)


def contributions(use_case: "dict[str, Any]", parts: "dict[str, Any]") -> None:
    from ui import explain

    explain._contributions(use_case, parts)


def explanation(found: "dict[str, Any]") -> None:
    from ui import explain

    explain._show({}, found)


def pick(use_cases: "list[dict[str, Any]]") -> None:
    import streamlit as st

    from ui import page

    st.text(page._pick(use_cases)["name"])


def specification(test: AppTest) -> dict[str, Any]:
    """What a view's only chart tells the browser, by Vega-Lite's names."""
    found: dict[str, Any] = json.loads(test.get("vega_lite_chart")[0].proto.spec)
    return found


def texts(test: AppTest) -> str:
    """The text of a view without Markdown's escapes."""
    parts = [element.value for kind in (test.warning, test.info, test.markdown, test.caption) for element in kind]
    return "\n".join(parts).replace("\\", "")


def test_a_version_that_is_not_confirmed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    info = INFO | {"loaded": INFO["loaded"] | {"stale": True}}  # type: ignore[operator]
    ready = {"use_cases": {"penguins": {"waiting_for": AWAY}}}
    test = shown(production, view_of({"/model-info": info, "/readyz": ready}, monkeypatch))
    [warning] = test.warning
    assert warning.value.startswith("**Not confirmed.** Version 1, loaded on 27 November 2026, 20:55 UTC, keeps")
    assert warning.value.replace("\\", "").endswith(f"The API waits for {AWAY}")


def test_a_confirmed_version_has_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    test = shown(production, view_of({"/model-info": INFO}, monkeypatch))
    assert not test.warning
    assert "since 27 November 2026, 20:55 UTC" in texts(test)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (("rollback", "rolled back by hand", "alice"), "Rolled back by hand. By alice."),
        (("gate", "accuracy 0.95", "airflow"), "Promoted by the gate: accuracy 0.95. By airflow."),
        (
            ("gate", "accuracy 0.95", "penguins_train asset_triggered__2026-11-28T14:05:09.123456+00:00_Vufy1H0j"),
            "By Airflow, run of 2026-11-28 14:05 UTC.",
        ),
        (("manual", "is it better?", "bob"), "Promoted by hand: is it better? By bob."),
    ],
)
def test_why_a_version_is_in_production_is_what_the_ledger_says(
    entry: tuple[str, str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, reason, actor = entry
    entries = [
        {"to_version": 2, "kind": "gate", "reason": "it was better", "actor": "airflow"},
        {"to_version": 1, "kind": kind, "reason": reason, "actor": actor},
    ]
    history = {"/models/penguins_species/history": {"entries": entries}}
    found = texts(shown(production, view_of({"/model-info": INFO} | history, monkeypatch)))
    assert said in found
    assert "no champion to compare with" not in found


def test_the_bars_of_an_explanation_have_the_order_of_the_api() -> None:
    """A chart that is updated in place keeps its order unless the new one is named."""
    features = [{"name": name, "kind": "number", "unit": "mm"} for name in ("bill", "flipper")]
    for names in (("bill", "flipper"), ("flipper", "bill")):
        found = [{"feature": n, "title": n, "value": 5.0, "contribution": 0.1, "error": None} for n in names]
        parts = {"label": "Adelie", "features": found, "exact": True, "base": 0.5, "output": 0.7, "method": "TreeSHAP"}
        [bars] = specification(shown(contributions, {"features": features}, parts))["layer"]
        assert bars["encoding"]["y"]["sort"] == [f"{name}: 5 mm" for name in names]


def test_an_explanation_without_contributions_says_why() -> None:
    model = {"name": "employees_burnout", "version": 1}
    near = [{"label": "Low", "share": 0.6}]
    found = texts(shown(explanation, {"contributions": None, "near_classes": near, "model": model}))
    assert "too few training rows" in found
    assert "Low: about 60%" in found


@pytest.mark.parametrize(("asked", "warnings"), [("nosuch", 1), ("penguins", 0), (None, 0)])
@pytest.mark.parametrize("names", [("covertype", "penguins"), ("penguins",)])
def test_an_unknown_use_case_in_the_address_is_named(names: tuple[str, ...], asked: str | None, warnings: int) -> None:
    use_cases = [{"name": name, "default": name == names[0]} for name in names]
    test = AppTest.from_function(pick, args=(use_cases,), default_timeout=60)
    if asked:
        test.query_params["use_case"] = asked
    test.run()
    assert not test.exception
    assert test.text[0].value == ("penguins" if asked == "penguins" else names[0])
    # It stays in the next run, whose address has it no longer.
    test.query_params.clear()
    assert [len(test.warning), len(test.run().warning)] == [warnings, warnings]
    if warnings:
        assert "nosuch" in test.warning[0].value


def test_batches_show_their_counts_before_the_beginning_of_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = shown(data, view_of(DATA, monkeypatch)).dataframe[0].value
    *counts, source, digest, epoch = frame.columns
    assert counts[:6] == ["Id", "Batch", "Received", "Rows", "Clean", "Refused"]
    assert (source, digest, epoch) == ("Source", "SHA-256", "Epoch")
    [row] = frame.to_dict("records")
    assert (row["Batch"], row["Rows"], row["SHA-256"], row["Epoch"]) == ("group 6 #1", 20, "d" * 8, "e" * 8)


def test_a_refused_row_has_its_number_from_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view of many rows and `dosel quarantine` count from 1, too; the API counts from 0."""
    test = shown(data, view_of(DATA, monkeypatch))
    [_, quarantine] = test.dataframe
    assert COUNTED in texts(test)
    assert quarantine.value.to_dict("records") == [
        {"Batch": "group 6 #1", "Row": 4, "Reason": "bill: expected more", "bill": "1"}
    ]


def test_the_symbols_of_a_legend_have_a_colour_that_both_themes_show(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [VERSION | {"version": 2, "in_production": False}, VERSION]
    answers = {"/models": {"models": [{"name": "penguins_species", "versions": versions}]}}
    [_, points] = specification(shown(models, view_of(answers, monkeypatch)))["layer"]
    legend = points["encoding"]["shape"]["legend"]
    assert legend["symbolFillColor"] == legend["symbolStrokeColor"] == LINE


def test_models_without_a_version_link_to_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/models": {"models": [{"name": "penguins_species", "versions": []}]}}
    assert "/dags/penguins_train)" in texts(shown(models, view_of(answers, monkeypatch)))


@pytest.mark.parametrize("stale", [True, False])
def test_an_answer_says_if_its_version_is_not_confirmed(stale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    test = shown(the_answer, view_of({}, monkeypatch), stale)
    assert ("could not confirm" in texts(test)) == stale


def test_a_service_that_is_down_is_named_once_with_its_own_punctuation(monkeypatch: pytest.MonkeyPatch) -> None:
    [info] = shown(models, view_of({}, monkeypatch)).info
    shown_text = info.value.replace("\\", "")
    assert shown_text == f"**The prediction API cannot answer this now.** T{AWAY[1:]}"


def test_a_confusion_matrix_names_every_class_also_one_without_rows() -> None:
    labels = [other.title for other in COVERTYPE.categories[0].choices]
    answers = [{"truth": labels[0], "a": labels[1], "b": labels[0], "rows": 3}]
    layers = comparison._matrix(answers, "a", labels).to_dict()["layer"]
    for axis in (layer["encoding"][name] for layer in layers for name in ("x", "y")):
        assert axis["scale"]["domain"] == labels
        assert axis["axis"]["labelOverlap"] is False, "Vega leaves out labels that overlap"


FIELDS = {name: {"kind": "category" if name == "island" else "number"} for name in ("island", "bill", "flipper")}


@pytest.mark.parametrize(
    ("contributions", "field"),
    [
        ({"island": 0.5, "bill": 0.1, "flipper": 0.2}, "flipper"),
        ({"island": 0.5, "bill": -0.3, "flipper": 0.2}, "bill"),
        (None, "bill"),
    ],
)
def test_what_if_opens_on_the_number_with_the_strongest_contribution(
    contributions: dict[str, float] | None, field: str
) -> None:
    features = [{"feature": name, "contribution": part} for name, part in (contributions or {}).items()]
    explanation = {"contributions": {"features": features} if features else None}
    assert what_if.first_field(FIELDS, explanation) == field


def test_what_if_opens_on_the_first_number_without_an_explanation_and_on_the_first_field_without_a_number() -> None:
    for explanation in (None, ServiceError(AWAY)):
        assert what_if.first_field(FIELDS, explanation) == "bill"
    assert what_if.first_field({"island": FIELDS["island"]}, None) == "island"
