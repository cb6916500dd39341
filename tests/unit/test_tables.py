"""Tables with a header as sources: column names, ignored columns and refused files."""

from dataclasses import replace
from pathlib import Path

import pytest

from dosel.errors import SourceError
from dosel.quality import check
from dosel.settings import Settings
from dosel.sources.lake import DATA, FolderLake
from dosel.sources.opened import source_of
from dosel.sources.table import as_csv, file_table
from dosel.usecases import ALL, GeneratedRows, LakeRows, PackageRows, UseCase
from dosel.usecases.employees import EMPLOYEES
from dosel.usecases.penguins import PENGUINS

SIZES = """species,island,culmen_length_mm,culmen_depth_mm,flipper_length_mm,body_mass_g,sex
Adelie,Torgersen,39.1,18.7,181,3750,MALE
Gentoo,Biscoe,44.5,15.7,217,4875,.
Chinstrap,Dream,46.5,17.9,192,3500,FEMALE
Adelie,Torgersen,NA,NA,NA,NA,NA
"""


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    file = tmp_path / "sizes.csv"
    file.write_text(SIZES)
    return file


@pytest.mark.parametrize(
    "use_case", [u for u in ALL if isinstance(u.rows, PackageRows | GeneratedRows)], ids=lambda u: u.name
)
def test_the_declared_source_of_a_use_case_gives_valid_rows(use_case: UseCase, tmp_path: Path) -> None:
    batch = source_of(use_case, Settings(home=tmp_path)).next_batch()
    assert batch
    checked = check(use_case, batch.rows, batch.coding)
    assert len(checked.refused) <= use_case.max_refused_share * len(batch.rows)


def test_columns_are_found_by_any_of_their_names_and_ordered_as_declared(sizes: Path) -> None:
    batch = file_table(PENGUINS, sizes).next_batch()
    assert batch
    assert batch.rows[0] == ["Torgersen", "39.1", "18.7", "181", "3750", "MALE", "Adelie"]
    checked = check(PENGUINS, batch.rows, batch.coding)
    assert checked.accepted["sex"].tolist() == ["male", "female"]
    assert checked.accepted["species"].tolist() == [0, 1]
    assert set(checked.refused) == {1, 3}
    assert checked.refused[1] == 'sex: expected one of female, male, got "."'


def test_a_configured_file_takes_precedence_over_the_package(sizes: Path, tmp_path: Path) -> None:
    batch = source_of(PENGUINS, Settings(home=tmp_path, files=f"penguins={sizes}")).next_batch()
    assert batch
    assert len(batch.rows) == 4


def test_a_table_is_delivered_once_and_changed_content_is_a_new_epoch(sizes: Path) -> None:
    table = file_table(PENGUINS, sizes)
    first = table.next_batch()
    assert table.next_batch() is None
    again = file_table(PENGUINS, sizes).next_batch()
    sizes.write_text(SIZES + "Adelie,Dream,36,18,190,3500,MALE\n")
    other = file_table(PENGUINS, sizes).next_batch()
    assert first
    assert again
    assert other
    assert (first.epoch, first.number) == (again.epoch, again.number)
    assert other.epoch != first.epoch


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not CSV: it is empty"),
        (SIZES.replace("sex", "gender").encode(), "one without sex: species, island"),
        (SIZES.replace("sex", "Island").encode(), "two columns for island"),
        (b"\xff\xfe\x00", "is not CSV in UTF-8"),
    ],
    ids=["empty", "lacks one", "one twice", "not UTF-8"],
)
def test_a_file_that_is_no_table_of_the_use_case_is_refused(content: bytes, message: str, sizes: Path) -> None:
    sizes.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        file_table(PENGUINS, sizes).next_batch()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.csv cannot be read"):
        file_table(PENGUINS, tmp_path / "nothing.csv").next_batch()


def test_a_line_with_another_number_of_columns_is_kept_for_the_checks(sizes: Path) -> None:
    sizes.write_text(SIZES + "Adelie,Dream\n")
    batch = file_table(PENGUINS, sizes).next_batch()
    assert batch
    assert check(PENGUINS, batch.rows, "").refused[4] == "expected 7 values, got 2"


def made() -> GeneratedRows:
    return GeneratedRows(lambda: iter([EMPLOYEES.example | {"Employee ID": "e1", "burn_rate": 0.4}]), "one row, made")


def test_the_lake_is_filled_once_from_the_configured_file(tmp_path: Path) -> None:
    use_case = replace(EMPLOYEES, rows=LakeRows("rows.csv", made()))
    file = tmp_path / "mine.csv"
    file.write_bytes(as_csv([EMPLOYEES.example | {"Employee ID": i, "Burn Rate": 0.1 * i} for i in range(3)]))
    settings = Settings(home=tmp_path, files=f"employees={file}")
    batch = source_of(use_case, settings).next_batch()
    assert batch
    assert len(batch.rows) == 3
    kept = tmp_path / "lake" / DATA / "rows.csv"
    assert kept.read_bytes() == file.read_bytes()
    assert batch.source == str(kept)
    file.unlink()
    again = source_of(use_case, settings).next_batch()
    assert again
    assert again.epoch == batch.epoch


def test_without_file_and_lake_rows_are_generated_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    use_case = replace(EMPLOYEES, rows=LakeRows("rows.csv", made()))
    batch = source_of(use_case, Settings(home=tmp_path)).next_batch()
    assert batch
    assert "rows.csv does not exist and DOSEL_FILES names no file for it: one row, made" in caplog.text
    # The identifier is not stored in the data store.
    assert batch.rows == [[*map(str, EMPLOYEES.example.values()), "0.4"]]


def test_an_object_in_the_lake_is_replaced_atomically(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    assert lake.get(DATA, "a/b.csv") is None
    for content in (b"first", b"second"):
        lake.put(DATA, "a/b.csv", content)
        assert lake.get(DATA, "a/b.csv") == content
    assert [file.name for file in (tmp_path / DATA / "a").iterdir()] == ["b.csv"]
