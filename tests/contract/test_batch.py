"""Bulk requests: the same predictions as row by row and in order, or all errors and no prediction."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ReferenceType, ref

import pytest
from fastapi.testclient import TestClient

from app.routes import bulk_predict
from dosel.rows.json import JsonReader
from dosel.rows.validation import InvalidRows, InvalidValue
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, NAME, serving, wait_until

PATH = f"/predict/{COVERTYPE.name}/batch"
CSV = {"Content-Type": "text/csv"}
NAMES = COVERTYPE.feature_names
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def api(install: Callable[..., Installation]) -> Iterator[TestClient]:
    here = install(max_batch_bytes=3_000_000, max_json_batch_bytes=500_000)
    here.promote(here.good[1])
    with serving(here.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield client


@pytest.fixture(scope="module")
def some(received: Callable[..., list[list[str]]]) -> Rows:
    numbers = {number.name for number in COVERTYPE.numbers}
    listed = [dict(zip(NAMES, row, strict=False)) for row in received(300)]
    return [{name: int(v) if name in numbers else v for name, v in row.items()} for row in listed]


def as_csv(rows: Rows, names: tuple[str, ...] = NAMES) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def row_by_row(api: TestClient, rows: Rows) -> Rows:
    return [
        {k: v for k, v in api.post("/predict", json=row).raise_for_status().json().items() if k != "model"}
        for row in rows
    ]


def test_a_json_batch_gets_the_same_predictions_as_single_rows(api: TestClient, some: Rows) -> None:
    answer = api.post(PATH, json=some).raise_for_status().json()
    assert answer["predictions"] == row_by_row(api, some)
    assert (answer["model"]["name"], answer["model"]["version"]) == (NAME, 1)


@pytest.mark.parametrize("names", [NAMES, tuple(reversed(NAMES))], ids=["declared order", "another order"])
def test_a_csv_batch_gets_the_same_predictions_as_single_rows(
    api: TestClient, some: Rows, names: tuple[str, ...]
) -> None:
    response = api.post(PATH, content=as_csv(some, names), headers=CSV).raise_for_status()
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert (response.headers["x-model"], response.headers["x-model-version"]) == (NAME, "1")
    answers = list(csv.DictReader(io.StringIO(response.text)))
    for answer, expected in zip(answers, row_by_row(api, some), strict=True):
        assert (int(answer["prediction"]), answer["label"]) == (expected["prediction"], expected["label"])
        assert {n: float(answer[f"probability {n}"]) for n in expected["probabilities"]} == expected["probabilities"]


@pytest.mark.soak
def test_rows_of_several_blocks_stay_in_order(api: TestClient, some: Rows) -> None:
    expected = [answer["prediction"] for answer in row_by_row(api, some)]
    answers = api.post(PATH, content=as_csv(some * 60), headers=CSV).raise_for_status().text
    assert [int(row["prediction"]) for row in csv.DictReader(io.StringIO(answers))] == expected * 60


@pytest.mark.parametrize("rows", [[], [EXAMPLE]], ids=["none", "one"])
def test_a_batch_of_few_rows_is_answered(api: TestClient, rows: Rows) -> None:
    assert len(api.post(PATH, json=rows).raise_for_status().json()["predictions"]) == len(rows)
    answers = api.post(PATH, content=as_csv(rows), headers=CSV).raise_for_status().text
    assert len(list(csv.DictReader(io.StringIO(answers)))) == len(rows)


def test_spellings_of_values_are_accepted_in_a_batch(api: TestClient) -> None:
    odd = EXAMPLE | {"Soil_Type": " 7102 ", "Wilderness_Area": "COMANCHE peak", "Elevation": 2544.0}
    expected = row_by_row(api, [EXAMPLE])
    assert api.post(PATH, json=[odd]).raise_for_status().json()["predictions"] == expected
    quoted = as_csv([odd]).replace(b"COMANCHE peak", b'"COMANCHE peak"')
    [answer] = csv.DictReader(io.StringIO(api.post(PATH, content=quoted, headers=CSV).raise_for_status().text))
    assert answer["label"] == expected[0]["label"]


WRONG: dict[str, dict[str, Any]] = {
    "above": {"Slope": 91},
    "fraction": {"Slope": 1.5},
    "text": {"Slope": "steep"},
    "NaN": {"Slope": float("nan")},
    "infinity": {"Slope": float("inf")},
    "empty": {"Slope": ""},
    "category": {"Soil_Type": "C1"},
    "no category": {"Soil_Type": ""},
}


def test_a_csv_without_rows_is_answered_with_a_header(api: TestClient) -> None:
    answers = [api.post(PATH, content=as_csv(rows), headers=CSV).raise_for_status().text for rows in ([], [EXAMPLE])]
    assert answers[0].splitlines() == answers[1].splitlines()[:1]


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_an_invalid_row_is_reported_with_its_number(api: TestClient, some: Rows, case: str, kind: str) -> None:
    rows = [*some[:10], EXAMPLE | WRONG[case], *some[10:12], EXAMPLE | {"Aspect": 1000}]
    if kind == "json":
        response = api.post(PATH, content=json.dumps(rows))
    else:
        response = api.post(PATH, content=as_csv(rows), headers=CSV)
    assert response.status_code == 422
    [field] = WRONG[case]
    assert [(e["row"], e["field"]) for e in response.json()["errors"]] == [(11, field), (14, "Aspect")]
    assert response.json()["errors"][0]["message"].startswith(f"row 11: {field}: expected ")


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_first_100_invalid_rows_are_listed(api: TestClient, some: Rows, kind: str) -> None:
    rows = [EXAMPLE | {"Slope": 91, "Aspect": -1} if i % 2 else row for i, row in enumerate(some)]
    content = json.dumps(rows).encode() if kind == "json" else as_csv(rows)
    headers = CSV if kind == "csv" else {}
    errors = api.post(PATH, content=content, headers=headers).json()["errors"]
    assert [e["row"] for e in errors[::2]] == list(range(2, 202, 2))
    assert {e["field"] for e in errors} == {"Slope", "Aspect"}


def test_an_invalid_row_after_a_million_bytes_prevents_all_predictions(api: TestClient, some: Rows) -> None:
    response = api.post(PATH, content=as_csv([*some * 60, EXAMPLE | {"Slope": 91}]), headers=CSV)
    assert response.status_code == 422
    assert [e["row"] for e in response.json()["errors"]] == [18_001]


def test_rows_after_a_line_with_another_number_of_columns_keep_their_numbers(api: TestClient, some: Rows) -> None:
    lines = as_csv([*some[:4], EXAMPLE | {"Slope": 91}]).splitlines()
    lines.insert(3, b"1,2,3")
    errors = api.post(PATH, content=b"\n".join(lines), headers=CSV).json()["errors"]
    assert [(e["row"], e["field"]) for e in errors] == [(3, None), (6, "Slope")]


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b'{"Slope": 1}', "application/json", 422, "a JSON list of rows"),
        (b"[1, 2]", "application/json", 422, "row 1"),
        (b"[{}", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        (b"", "application/json", 400, "not JSON"),
        (b"", "text/csv", 400, "not CSV"),
        (b"\xff\xfe,1\n", "text/csv", 400, "not CSV"),
        (b"Slope\n1\n", "text/csv", 422, "a header with the columns"),
        (as_csv([]).replace(b"Slope", b"Aspect"), "text/csv", 422, "a header with the columns"),
        (as_csv([]).replace(b"Slope", b"Slope,slope"), "text/csv", 422, "one with two columns for Slope"),
        (as_csv([]).replace(b"Slope", b"Slope" + b",x" * 400), "text/csv", 400, "412 columns"),
        (b"x" * 70_000, "text/csv", 400, "longer than 65,536 bytes"),
        (as_csv([EXAMPLE]).replace(b"C7102", b'"C7102'), "text/csv", 400, "a quote"),
        (as_csv([EXAMPLE]).replace(b"C7102", b"\xe9"), "text/csv", 400, "not CSV"),
        (as_csv([EXAMPLE]) + b"\xe9,1\n", "text/csv", 400, "not CSV in UTF-8"),
        (as_csv([]) + b"1" * 2_000_000, "text/csv", 422, "row 1: expected 12 values, got 1"),
        (b"rows", "text/plain", 415, "text/csv"),
        (b"[" + b" " * 600_000 + b"]", "application/json", 413, "500,000 bytes"),
        (b" " * 3_000_001, "text/csv", 413, "3,000,000 bytes"),
    ],
)
def test_an_unreadable_body_gets_an_error_with_the_reason(
    api: TestClient, content: bytes, kind: str, status: int, message: str
) -> None:
    response = api.post(PATH, content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_undeclared_columns_of_a_csv_are_returned_before_the_prediction(api: TestClient, some: Rows) -> None:
    listed = [{"id": f"no. {i}, so", "Cover_Type": i % 7, **row} for i, row in enumerate(some)]
    names = ("id", *NAMES, "Cover_Type")
    text = api.post(PATH, content=as_csv(listed, names), headers=CSV).raise_for_status().text
    answers = list(csv.DictReader(io.StringIO(text)))
    assert list(answers[0])[:4] == ["id", "Cover_Type", "prediction", "label"]
    assert [(a["id"], a["Cover_Type"]) for a in answers] == [(r["id"], str(r["Cover_Type"])) for r in listed]
    assert [int(a["prediction"]) for a in answers] == [a["prediction"] for a in row_by_row(api, some)]


def test_a_json_row_with_unknown_fields_is_refused(api: TestClient) -> None:
    """A misspelled optional field would count as missing; in a CSV, the header must name all columns."""
    [error] = api.post(PATH, json=[EXAMPLE, EXAMPLE | {"id": 7}]).json()["errors"]
    assert (error["row"], error["field"], error["expected"]) == (2, "id", "no field of this name")


def test_a_csv_with_semicolons_is_answered_with_semicolons(api: TestClient, some: Rows) -> None:
    body = b"\xef\xbb\xbf" + as_csv(some).replace(b",", b";").replace(b"\r\n", b"\n")
    text = api.post(PATH, content=body, headers=CSV).raise_for_status().text
    answers = list(csv.DictReader(io.StringIO(text), delimiter=";"))
    assert [int(a["prediction"]) for a in answers] == [a["prediction"] for a in row_by_row(api, some)]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_csv_in_utf_16_is_answered_in_utf_8(api: TestClient, some: Rows, encoding: str) -> None:
    body = ("\ufeff" + as_csv(some).decode()).encode(encoding)
    response = api.post(PATH, content=body, headers=CSV).raise_for_status()
    assert response.content == api.post(PATH, content=as_csv(some), headers=CSV).raise_for_status().content
    refused = api.post(PATH, content=body[:-1], headers=CSV)
    assert (refused.status_code, refused.json()["detail"]) == (400, "the body is not CSV in UTF-16: truncated data")


def test_an_unknown_use_case_or_model_gets_404(api: TestClient) -> None:
    assert api.post("/predict/nothing/batch", json=[]).status_code == 404
    assert api.post(PATH, params={"model": "nope"}, json=[]).status_code == 404
    assert api.post(PATH, params={"model": NAME}, json=[]).is_success


@pytest.mark.soak
def test_unread_answers_have_bounded_disk_and_give_it_back(
    install: Callable[..., Installation], some: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_predict, "IN_MEMORY_BYTES", 1)
    here = install(max_batch_bytes=1024, max_json_batch_bytes=500_000)
    here.promote(here.good[1])
    with serving(here.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        # Together, these are more than a client may leave unread.
        for _ in range(4):
            assert len(client.post(PATH, json=some[:10]).raise_for_status().content) > 1_500
        refused = client.post(PATH, json=some)
    assert refused.status_code == 503
    assert "the disk for answers that clients have not read" in refused.json()["detail"]


def test_a_refused_body_is_not_referenced_when_memory_is_released(
    api: TestClient, some: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Body:
        """A stand-in for the body that was read."""

    read: list[ReferenceType[Body]] = []
    still_held = []

    def refuse(_: JsonReader, __: bytes) -> None:
        body = Body()
        read.append(ref(body))
        raise InvalidRows([InvalidValue(None, "other rows", "these")])

    monkeypatch.setattr(JsonReader, "rows", refuse)
    monkeypatch.setattr(bulk_predict, "LARGE_BYTES", 1)
    monkeypatch.setattr(bulk_predict, "release_memory", lambda: still_held.append(read[0]()))
    assert api.post(PATH, json=some).status_code == 422
    assert still_held == [None]
