"""Figures about live rows of a closed use case do not show one row more."""

import logging
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dosel.closed import BLOCK, HIDDEN, coarse, power_of_ten, shown_files, without_figures
from dosel.closed_logs import without_figures_of
from dosel.errors import DoselError, TrainingError, WarehouseError
from dosel.model.bundle import ESTIMATOR_FILE, HELD_OUT_FILE, ONNX_FILE, REFERENCE_FILE
from dosel.monitor.blocks import in_blocks
from dosel.monitor.truths import Truths, TruthSource
from dosel.rows import frames
from dosel.rows.hashing import is_held_out
from dosel.training.rows import RowsInMemory
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

START = datetime(2026, 1, 1, tzinfo=UTC)


def clean_rows(count: int) -> pd.DataFrame:
    words = pd.DataFrame(as_words(generate(count, seed=3), first_class=1), columns=list(COVERTYPE.columns))
    table = frames.canonical(COVERTYPE, words)
    table[COVERTYPE.target.name] = words[COVERTYPE.target.name].astype("int64")
    return table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (9, 0),
        (99, 90),
        (1_234, 1_200),
        (0.837, 0.85),
        (123.4, 120.0),
        (inf, inf),
        (True, True),
        (None, None),
        ({"labels": [17, 23], "version": 17}, {"labels": [10, 20], "version": 17}),
    ],
)
def test_counts_and_shares_are_coarse(value: Any, shown: Any) -> None:
    assert coarse(value) == shown


@pytest.mark.parametrize(("evidence", "shown"), [(0.034, 0.01), (250.0, 100.0), (0.0, 0.0), (inf, inf)])
def test_evidence_is_a_power_of_ten(evidence: float, shown: float) -> None:
    assert power_of_ten(evidence) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "it answered 1,017 of 1,040 labelled rows correctly (3 only it, 1 only the champion); version 2 stays",
            "it answered … of … labelled rows correctly (… only it, … only the champion); version 2 stays",
        ),
        (
            "1,003 rows only the version in shadow, 1 row only the champion",
            "… rows only the version in shadow, … row only the champion",
        ),
        ("waits for 12 more labelled rows", "waits for … more labelled rows"),
        ("more evidence: 3.4 that it is better and 0.034 that", "more evidence: … that it is better and … that"),
        (
            "accuracy 0.7833 on 400 labelled live rows (the true figure is at most 0.8012), 0.87 on 46 held-out rows",
            "accuracy … on … labelled live rows (the true figure is at most …), … on … held-out rows",
        ),
        ("proven after 8 of these live rows", "proven after … of these live rows"),
        (
            "f1_macro 0.8710 against 0.8676 in Production, on the same 1,146 held-out rows; women: 17 of 40",
            "f1_macro 0.87 against 0.87 in Production, on the same … held-out rows; women: … of …",
        ),
        (
            "95.0000% interval of the difference: -0.0123 to +0.0456; required: at least -0.0100 at look 2 of 20",
            "…% interval of the difference: -0.01 to +0.05; required: at least -0.01 at look 2 of …",
        ),
        ("the prediction API answered 404: no use case x", "the prediction API answered 404: no use case x"),
        (
            "the data API at http://127.0.0.1:5001/data answered 503; see its log, 17 rows",
            "the data API at http://127.0.0.1:5001/data answered 503; see its log, … rows",
        ),
        (
            "the data API at http://data:80 answered 200 with 1,204 bytes that are not JSON",
            "the data API at http://data:80 answered 200 with … bytes that are not JSON",
        ),
        ("MLflow: it answered with HTTP status 500, port 5000", "MLflow: it answered with HTTP status 500, port 5000"),
        ("no connection to 10.0.0.7:3306 or localhost:9000", "no connection to 10.0.0.7:3306 or localhost:9000"),
        # Counts that could be a status or a port.
        ("it answered 404 labelled rows correctly", "it answered … labelled rows correctly"),
        ("the champion answered 404; 503 of 511", "the champion answered …; … of …"),
        ("Embarked port: 404 of 511, port 512 of 600", "Embarked port: … of …, port … of …"),
        ("the API answered 404 rows with 503 errors", "the API answered … rows with … errors"),
        ("probabilities off by at most 3.2e-07", "probabilities off by at most …"),
        ("0.5 % of versions 3 and 4, request 2", "… % of versions 3 and 4, request 2"),
        ("all use the split h1-salt-0.2-8f2a1b3c", "all use the split h1-salt-0.2-8f2a1b3c"),
        ("until 2026-11-28 03:40 UTC, run 0123456789ab", "until 2026-11-28 03:40 UTC, run 0123456789ab"),
    ],
)
def test_a_text_of_a_closed_use_case_keeps_its_words_and_no_figures(text: str, shown: str) -> None:
    assert without_figures(text) == shown


@pytest.mark.parametrize("is_open", [True, False])
def test_logs_and_errors_of_a_closed_use_case_have_no_figures(is_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    use_case = replace(COVERTYPE, expose_training_rows=is_open)
    log, other = logging.getLogger("dosel.training.train"), logging.getLogger("airflow")
    text = "version 3: accuracy 0.8614 on 1,147 held-out rows"
    caplog.set_level(logging.INFO)

    def task() -> None:
        with without_figures_of(use_case):
            log.info("version %d: accuracy %.4f on %s held-out rows", 3, 0.8614, "1,147")
            other.info("try number %d", 2)
            assert logging.makeLogRecord({"name": "dosel.x", "msg": "as a copy"}).getMessage() == "as a copy"
            raise TrainingError("only 12 rows of class 3")

    with pytest.raises(TrainingError) as raised:
        task()
    shown = text if is_open else "version 3: accuracy 0.86 on … held-out rows"
    assert caplog.messages == [shown, "try number 2"]
    assert str(raised.value) == ("only 12 rows of class 3" if is_open else "only … rows of class …")
    # After the block, as before it.
    log.info("%d rows", 12)
    assert caplog.messages[-1] == "12 rows"


@pytest.mark.parametrize("error", [ValueError("row 17: salary 4123"), WarehouseError("no answer for 30 s")])
def test_an_error_of_a_closed_use_case_has_no_cause_and_no_foreign_text(error: Exception) -> None:
    # Not in the line that raises it, which a traceback shows.
    cause = KeyError("row 18: salary 5000")

    def task() -> None:
        with without_figures_of(replace(COVERTYPE, expose_training_rows=False)):
            raise error from cause

    with pytest.raises(DoselError) as raised:
        task()
    text = "".join(traceback.format_exception(raised.value))
    assert "salary" not in text
    assert "30 s" not in text
    assert type(error).__name__ in text


def labelled(source: TruthSource, *rows: int) -> Truths:
    classes = np.array(rows, np.int64)
    return Truths("covertype", "vf", 1, 1, source, "1", START, classes, classes)


def test_rows_of_batches_count_in_blocks_where_their_last_row_came() -> None:
    parts = [
        labelled("batch", *range(30)),
        labelled("feedback", 7),
        labelled("batch", *range(30, 110)),
        labelled("batch", 110),
    ]
    found = in_blocks(parts, ("truth", "answered"))
    assert [(part.source, len(part.truth)) for part in found] == [("feedback", 1), ("batch", 2 * BLOCK)]
    assert found[1].truth.tolist() == found[1].answered.tolist() == list(range(100))


@pytest.mark.parametrize(("is_open", "blocks"), [(True, 0), (False, 1)])
def test_a_closed_use_case_is_measured_on_whole_blocks_of_held_out_rows(is_open: bool, blocks: int) -> None:
    use_case = replace(COVERTYPE, expose_training_rows=is_open)
    table = clean_rows(2_000)
    held_out = is_held_out(use_case, table)
    rows = RowsInMemory.of(use_case, table, "digest")
    assert rows.rows_train == (~held_out).sum()
    expected = held_out.sum() // BLOCK * BLOCK if blocks else held_out.sum()
    assert rows.rows_held_out == len(rows.held_out_features) == expected
    first = table[held_out][COVERTYPE.target.name].to_numpy()[:expected]
    assert rows.held_out_classes.tolist() == first.tolist()


@pytest.mark.parametrize("is_open", [True, False])
def test_the_digests_of_files_with_rows_are_hidden_of_a_closed_use_case(is_open: bool) -> None:
    with_rows = {f"extra_files/{name}": "1" * 64 for name in (REFERENCE_FILE, HELD_OUT_FILE)}
    others = {ESTIMATOR_FILE: "2" * 64, f"extra_files/{ONNX_FILE}": "3" * 64}
    found = shown_files(replace(COVERTYPE, expose_training_rows=is_open), with_rows | others)
    assert found == (with_rows if is_open else dict.fromkeys(with_rows, HIDDEN)) | others
