"""`dosel predict` as a script runs it, asking a running API about a file.

What depends on pipes runs it as a process, and the other tests in their own, since its imports take a second each time.
"""

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from dosel.cli import cli
from dosel.cli.output import READER_GONE
from dosel.cli.predict import ROWS_REFUSED, TRY_AGAIN
from dosel.usecases.penguins import PENGUINS
from tests.contract.conftest import Installation
from tests.contract.test_live import served

ARGUMENTS = ("predict", PENGUINS.name)
HEADER = "id;Island;culmen_length_mm;bill-depth-mm;flipper_length_mm;body_mass_g;sex\n"
"""Aliases, other separators, and a column that is not declared."""
ROW = '"{}";Biscoe;39,1;18,7;181;3750;FEMALE\n'

LIMIT = 4_000_000
"""Most bytes of a file, for this API."""

Script = Callable[..., "subprocess.CompletedProcess[bytes]"]
Dosel = Callable[..., Result]


@pytest.fixture(scope="module")
def settings(install: Callable[..., Installation]) -> Iterator[dict[str, str]]:
    """The settings of a client of a running API."""
    here = install(in_production=True)
    here.promote_others()
    with served(here, DOSEL_MAX_BATCH_BYTES=str(LIMIT)) as (_, port):
        yield {"DOSEL_API_URL": f"http://127.0.0.1:{port}", "DOSEL_HOME": str(here.settings.home)}


@pytest.fixture
def script(settings: dict[str, str]) -> Script:
    """Run the command as a process."""

    def run(*arguments: str | Path, sent: bytes = b"", stdout: int = subprocess.PIPE) -> Any:
        command = (sys.executable, "-m", "dosel", *ARGUMENTS, *map(str, arguments))
        return subprocess.run(
            command,
            env=os.environ | settings,
            input=sent,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def dosel(settings: dict[str, str]) -> Dosel:
    """Run the command in the test's process."""

    def run(*arguments: str | Path, sent: bytes = b"", **environment: str) -> Result:
        command = (*ARGUMENTS, *map(str, arguments))
        return CliRunner(env=settings | environment).invoke(cli, command, input=sent)

    return run


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_piped_file_is_answered_row_by_row(script: Script, encoding: str) -> None:
    result = script("-", sent=(HEADER + ROW.format("first; é") + ROW.format("2")).encode(encoding))
    assert result.returncode == 0, result.stderr
    header, first, second = csv.reader(result.stdout.decode().splitlines(), delimiter=";")
    assert header[:10] == [*HEADER.strip().split(";"), "prediction", "label", "probability Adelie"]
    assert (first[:3], second[0]) == (["first; é", "Biscoe", "39,1"], "2")
    assert second[8] in PENGUINS.target.labels.values()
    assert b"penguins_species version 1" in result.stderr


def test_the_answer_can_be_parquet_with_types(dosel: Dosel, tmp_path: Path) -> None:
    file, out = tmp_path / "rows.csv", tmp_path / "out.parquet"
    file.write_text(HEADER + "".join(ROW.format(f"007\n{number}") for number in range(30_000)))
    result = dosel(file, "-o", out)
    assert result.exit_code == 0, result.stderr
    table = parquet.read_table(out)
    assert table.num_rows == 30_000
    assert table["id"][29_999].as_py() == "007\n29999"
    assert [str(kind) for kind in table.schema.types[:10]] == ["string"] * 7 + ["int64", "string", "double"]
    assert set(table["label"].to_pylist()) <= set(PENGUINS.target.labels.values())
    assert sorted(found.name for found in tmp_path.iterdir()) == ["out.parquet", "rows.csv"]


def test_a_refused_cell_is_named_with_its_row_line_and_column_and_what_to_write(dosel: Dosel, tmp_path: Path) -> None:
    file, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    wrong = ROW.format("3").replace("39,1", "390")
    file.write_text(HEADER + ROW.format("of two\nlines") + "\n" + ROW.format("2") + wrong + "4;Biscoe\n")
    result = dosel(file, "-o", out)
    assert result.exit_code == ROWS_REFUSED
    assert result.stderr.splitlines() == [
        f"{file}: row 3, line 6, column culmen_length_mm: got 390; write a number from 25 to 70 mm",
        f"{file}: row 4, line 7: got 2; write 7 values",
        "nothing was predicted; there are 2 refused rows (rows count from 1, without the header)",
    ]
    assert not out.exists()


def test_a_missing_column_is_named(dosel: Dosel) -> None:
    result = dosel("-", sent=b"island,sex\nBiscoe,male\n")
    assert result.exit_code == ROWS_REFUSED
    assert "without bill_length_mm" in result.stderr


def test_a_file_beyond_the_limit_of_the_api_says_what_to_do(dosel: Dosel) -> None:
    row = ROW.format("1").encode()
    result = dosel("-", sent=HEADER.encode() + row * (LIMIT * 5 // len(row)))
    assert result.exit_code == ROWS_REFUSED, result.stderr
    assert "more than the limit" in result.stderr
    assert "split the file" in result.stderr


def test_an_api_that_is_away_has_an_exit_code_of_its_own(dosel: Dosel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = dosel("-", sent=HEADER.encode(), DOSEL_API_URL=url)
    assert result.exit_code == TRY_AGAIN
    assert "cannot be reached" in result.stderr


@pytest.mark.parametrize("arguments", [("missing.csv",), ("-", "-o", "out.txt"), ("-", "--encoding", "klingon")])
def test_wrong_arguments_are_refused_before_anything_is_sent(dosel: Dosel, arguments: tuple[str, ...]) -> None:
    result = dosel(*arguments)
    assert result.exit_code == 2


def test_a_folder_that_does_not_exist_is_named(dosel: Dosel, tmp_path: Path) -> None:
    result = dosel("-", "-o", tmp_path / "none" / "out.csv", sent=(HEADER + ROW.format("1")).encode())
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


@pytest.mark.soak
def test_predict_ends_quietly_when_the_reader_of_stdout_has_gone(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(HEADER + "".join(ROW.format(number) for number in range(30_000)))
    reading, writing = os.pipe()
    os.close(reading)
    result = script(file, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (READER_GONE, b"")
