"""CSV files on the page: what is uploaded in any encoding comes back with the answers beside its own columns."""

import csv
import io
from tempfile import TemporaryFile

import pytest

from dosel.errors import DoselError
from dosel.rows.answered import beside
from ui.csv_files import Answers, Column, Upload

COLUMNS = (Column("length", ("bill",)), Column("island", ()))
TEXT = 'id;Bill;note;Island\n1;39,1;"two\nlines; one cell";Biscoe\n\n2;40;é;Dream\n'
ANSWER = 'id;note;prediction;label;probability A\n1;"two\nlines; one cell";0;A;0.9\n2;é;1;B;0.2\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_answers_come_beside_the_columns_of_the_file(encoding: str) -> None:
    upload = Upload.of("rows.csv", TEXT.encode(encoding))
    header = upload.header(COLUMNS)
    assert (header.delimiter, header.places) == (";", {"length": 1, "island": 3})
    with TemporaryFile() as answer:
        answer.write(ANSWER.encode())
        answers = Answers.of(beside(upload.path, header, answer), "penguins_species", 3, stale=True)
    written, *rows = csv.reader(io.StringIO(answers.content().decode()), delimiter=";")
    assert written == ["id", "Bill", "note", "Island", "prediction", "label", "probability A"]
    assert rows == [
        ["1", "39,1", "two\nlines; one cell", "Biscoe", "0", "A", "0.9"],
        ["2", "40", "é", "Dream", "1", "B", "0.2"],
    ]
    assert answers.stale
    assert (answers.rows, answers.labels, answers.version) == (2, {"A": 1, "B": 1}, 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<html>", "is it the prediction API"),
        ("id;note;prediction;label;probability A\n1;;0;A;0.9\n", "the number of answers is not that of the rows"),
    ],
    ids=["another service", "too few"],
)
def test_an_answer_to_something_else_is_not_joined(answer: str, reason: str) -> None:
    upload = Upload.of("rows.csv", TEXT.encode())
    with TemporaryFile() as spool:
        spool.write(answer.encode())
        with pytest.raises(DoselError, match=reason):
            list(beside(upload.path, upload.header(COLUMNS), spool).rows)


def test_a_row_is_found_by_its_number_without_empty_lines_and_across_lines() -> None:
    upload = Upload.of("rows.csv", TEXT.encode())
    found = upload.rows(upload.header(COLUMNS), {1, 2, 7})
    assert {number: values[0] for number, values in found.items()} == {1: "1", 2: "2"}
    assert found[1][2] == "two\nlines; one cell"


def test_a_file_without_the_columns_is_refused_by_their_names() -> None:
    with pytest.raises(DoselError, match="without length"):
        Upload.of("rows.csv", b"island\nDream\n").header(COLUMNS)


@pytest.mark.parametrize("content", [b"\xff\xfeodd", b"island;length\n\x81;1\n"], ids=["UTF-16", "other"])
def test_a_file_in_no_known_encoding_is_refused(content: bytes) -> None:
    with pytest.raises(DoselError, match=r"rows\.csv is not text"):
        Upload.of("rows.csv", content)
