"""`dosel init`: what it proposes for files as people have them, and that the proposal can be used as it is."""

import ast
import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from dosel import quality
from dosel.cli import cli
from dosel.cli.drafting.columns import identifier
from dosel.cli.drafting.draft import Draft, draft
from dosel.cli.drafting.profile import read
from dosel.cli.drafting.source import check_source, source
from dosel.embedded.processes import Processes
from dosel.errors import SourceError
from dosel.settings import Settings
from dosel.sources.opened import source_of
from dosel.usecases import Bins, Category, Number, UseCase
from dosel.usecases.reading import problems_of

Row = Sequence[object]
Write = Callable[..., Path]
PENGUINS = files("palmerpenguins") / "data/penguins.csv"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a CSV of these rows, the first one its header."""

    def made(rows: Iterator[Row], delimiter: str = ",", encoding: str = "utf-8") -> Path:
        path = tmp_path / "some data.csv"
        path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows), encoding)
        return path

    return made


def proposed(path: Path, target: str = "") -> tuple[Draft, UseCase]:
    """The proposal and the use case that its file declares; the file has no problem, and its rows are accepted."""
    made = draft(read(path), target)
    file = path.with_name("proposed.py")
    file.write_text(source(made, identifier(path.stem)))
    assert problems_of(file, ()) == []
    for check in (("check",), ("format", "--check")):
        subprocess.run([sys.executable, "-m", "ruff", *check, "--quiet", str(file)], check=True)
    values: dict[str, object] = {}
    exec(compile(file.read_text(), file, "exec"), values)
    [use_case] = [value for value in values.values() if isinstance(value, UseCase)]
    batch = source_of(use_case, Settings(home=path.parent)).next_batch()
    assert batch is not None
    refused = quality.check(use_case, batch.rows, batch.coding).refused
    assert len(refused) == made.without_target, refused
    return made, use_case


def test_penguins_get_types_bounds_choices_and_missing_marks(tmp_path: Path) -> None:
    path = tmp_path / "penguins.csv"
    path.write_bytes(PENGUINS.read_bytes())
    _, use_case = proposed(path, "species")
    assert use_case.target.labels == {0: "Adelie", 1: "Chinstrap", 2: "Gentoo"}
    assert use_case.missing == ("NA",)
    bill = next(number for number in use_case.numbers if number.name == "bill_length_mm")
    assert (bill.unit, bill.title, bill.integer, bill.optional) == ("mm", "Bill length", False, True)
    assert bill.minimum < 32.1
    assert bill.maximum > 59.6
    assert [category.values for category in use_case.categories] == [
        ("Biscoe", "Dream", "Torgersen"),
        ("female", "male"),
    ]
    assert use_case.preprocessing.imputer == "iterative"


def employees() -> Iterator[Row]:
    rng = random.Random(1)
    yield "Employee ID", "Date of Joining", "Gender", "Company", "Work Hours", "Notes", "Rate copy", "Burn Rate"
    for number in range(400):
        rate = "" if number % 20 == 0 else round(rng.random(), 2)
        notes = " ".join(rng.choice(("tired", "glad", "busy", "calm")) for _ in range(12))
        gender = rng.choice(("Female", "female", "F", "Male"))
        yield (
            f"fffe{number:04x}",
            f"2008-{number % 12 + 1:02}-03",
            gender,
            "Acme",
            rng.randint(35, 60),
            notes,
            rate,
            rate,
        )


def test_unusable_columns_of_employees_are_left_out_with_the_reason(write: Write) -> None:
    made, use_case = proposed(write(employees()))
    assert use_case.feature_names == ("Gender", "Work_Hours")
    reasons = ("identifier", "date", "always 'Acme'", "free text", "the same as Burn Rate")
    for column, reason in zip(
        ("Employee ID", "Date of Joining", "Company", "Notes", "Rate copy"), reasons, strict=True
    ):
        assert reason in made.left_out[column]
    assert isinstance(use_case.target.bins, Bins)
    assert max(made.classes.values()) < 2 * min(made.classes.values())
    assert (made.without_target, use_case.max_refused_share) == (20, 0.1)
    [gender] = use_case.categories
    assert [(choice.value.casefold(), choice.aliases) for choice in gender.choices] == [
        ("female", ("f",)),
        ("male", ()),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_file_of_a_spreadsheet_is_read_in_its_encoding_with_decimal_commas(write: Write, encoding: str) -> None:
    rng = random.Random(2)
    head: list[Row] = [("Größe (m)", "Straße", "Klasse")]
    rows = ((f"{rng.uniform(1, 2):.2f}".replace(".", ","), rng.choice(("Süd", "Nord")), i % 2) for i in range(60))
    _, use_case = proposed(write(iter([*head, *rows]), ";", encoding))
    height, street = use_case.features
    assert isinstance(height, Number)
    assert isinstance(street, Category)
    assert (height.name, height.aliases, street.name) == ("Grosse_m", ("Größe (m)",), "Strasse")
    assert 0 <= height.minimum < 1.1
    assert street.values == ("Nord", "Süd")


def test_a_file_with_a_hundred_columns_and_numeric_classes_is_proposed(write: Write) -> None:
    rng = random.Random(3)
    head: list[Row] = [(*(f"x{i}" for i in range(100)), "copy of class", "class")]
    rows = ((*(rng.gauss(0, 10**-3) for _ in range(100)), "abc"[i % 3], i % 3 + 1) for i in range(90))
    made, use_case = proposed(write(iter([*head, *rows])))
    assert len(use_case.features) == 100
    assert use_case.target.labels == {1: "1", 2: "2", 3: "3"}
    assert "the same as class" in made.left_out["copy of class"]


def test_words_among_numbers_are_proposed_as_missing_marks(write: Write) -> None:
    rows: list[Row] = [("age", "no", "label"), *((i % 50, i, "ab"[i % 2]) for i in range(200)), ("unknown", 200, "a")]
    made, use_case = proposed(write(iter(rows)))
    assert use_case.missing == ("unknown",)
    assert made.left_out == {"no": "it is a row number"}
    assert made.lacking == {"age": 1}


@pytest.mark.parametrize(("low", "high"), [("-1e308", "9e307"), ("1.1", "1e308"), ("-5e-324", "1e-323")])
def test_numbers_at_the_limits_of_a_float_keep_their_bounds(low: str, high: str, write: Write) -> None:
    rows: list[Row] = [("x", "label"), *(((low, high)[i % 2], "ab"[i % 3 == 0]) for i in range(100))]
    _, use_case = proposed(write(iter(rows)))
    [number] = use_case.numbers
    assert (number.minimum, number.maximum) == (float(low), float(high))


def test_columns_with_one_name_are_left_out_and_columns_of_0_and_1_keep_their_bounds(write: Write) -> None:
    rows: list[Row] = [("x", "X", "on", "label"), *((i % 7, i % 5, i % 2, "ab"[i % 3 == 0]) for i in range(100))]
    made, use_case = proposed(write(iter(rows)))
    assert set(made.left_out) == {"x", "X"}
    [switch] = use_case.numbers
    assert (switch.minimum, switch.maximum, switch.integer) == (0, 1, True)


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("a,A,b\n1,2,x\n2,3,y\n", "a", "several columns are called a"),
        ("a,b\n", "", "no rows"),
        ("a\n1\n", "", "at least two columns"),
        ("a\tb\n1\t2\n", "", "separated by tabs"),
        ("a,b\n1,2\n3,4\n", "c", "no column 'c'; there are: a, b"),
        ("a,b\n1,2\n3,2\n", "b", "one value only"),
        ("a,b\n1,x\n1,y\n", "b", "no column is left"),
    ],
)
def test_a_file_without_a_proposal_says_why(tmp_path: Path, text: str, target: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=words):
        draft(read(path), target)


def test_the_command_writes_the_file_says_what_to_look_at_and_overwrites_nothing(write: Write, tmp_path: Path) -> None:
    arguments = ["init", str(write(employees())), "-o", str(tmp_path / "burnout.py"), "--name", "burnout"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "leaves out Employee ID: it is an identifier" in result.output
    assert "Burn Rate: 20 rows have none" in result.output.replace("Burn_Rate", "Burn Rate")
    assert "guessed: name another column with --target" in result.output
    assert 'name="burnout"' in (tmp_path / "burnout.py").read_text()
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2
    assert "is there already" in " ".join(again.output.replace("│", " ").split())


@pytest.mark.parametrize("runs", [True, False])
def test_while_the_platform_runs_the_file_is_not_written_where_airflow_reads_it(
    runs: bool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would train on guesses that nobody has looked at."""
    package = tmp_path / "usecases"
    (records := Processes(tmp_path)._records).mkdir(parents=True)
    package.mkdir()
    pid = os.getpid() if runs else 2**22 + 1
    known = {"pid": pid, "created": psutil.Process().create_time()}
    (records / "airflow-scheduler.json").write_text(json.dumps(known))
    monkeypatch.setattr("dosel.usecases.__path__", [str(package)])
    monkeypatch.setenv("DOSEL_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["init", str(write(employees())), "--name", "burnout"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "burnout.py").exists() is runs
    assert (package / "burnout.py").exists() is not runs
    assert ("The platform runs" in result.output) is runs
    if runs:
        monkeypatch.chdir(package)
        result = CliRunner().invoke(cli, ["init", str(write(employees())), "--name", "burnout"])
        assert result.exit_code == 2
        assert not list(package.iterdir())


def test_a_proposal_that_clashes_with_a_use_case_names_the_problem(write: Write, tmp_path: Path) -> None:
    arguments = ["init", str(write(employees())), "-o", str(tmp_path / "p.py"), "--name", "penguins"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "the use case penguins has 'penguins' already" in result.output


HOSTILE = (
    'y\nimport os;os.system("touch ran")#',
    "y\rimport os",
    'y"""\nimport os#',
    "y\\\nimport os",
    "y\u2028import os",
    "y\x1b[2J",
    "'''y",
    "{y}",
    "# y",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_word_of_a_csv_becomes_code(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the name of the target, of a feature, of a column that is left out, and as values."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", text + "1", text + "same", text])
        for number in range(60):
            word = text if number % 2 else "other"
            writer.writerow([number, text if number % 3 else "another", word, word])
    made = source(draft(read(path)), "hostile")
    check_source(made)
    out = tmp_path / "hostile.py"
    result = CliRunner().invoke(cli, ["init", str(path), "-o", str(out), "--name", "hostile"])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert ast.parse(out.read_text()) is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import os\n",
        '"""A."""\nfrom os import system\nX = system("id")\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nX = open("a")\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nX = Number(__import__("os"))\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nX = Number("a".join)\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nimport os\nX = Number("a")\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nX[print("ran")] = Number("a")\n',
        '"""A."""\nfrom dosel.usecases.features import Number\nNumber = X = Number("a")\n',
    ],
)
def test_a_file_that_does_more_than_declare_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="plain declaration"):
        check_source(text)
