"""The record of the last start in a home, and how data for other settings is set aside."""

import stat
from pathlib import Path

import pytest

from dosel.credentials import NEWEST_ENTRIES
from dosel.embedded.home import PARTS, SOURCE, Home

FIRST = {"API_PORT": "8989", "DATA_API_ROWS": "20000", "PATH": "/bin", "DOSEL_HOME": "/somewhere"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.remember(FIRST)
    return made


def fill(folder: Path) -> None:
    for name in PARTS:
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
    (folder / "warehouse.db").write_text("rows")
    (folder / f"{NEWEST_ENTRIES}0a1b2c3d.json").write_text("{}")


def test_a_home_that_was_never_started_has_no_differences(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    assert home.last_start() == {}
    assert home.resumed(FIRST) == FIRST


def test_only_settings_are_recorded(home: Home) -> None:
    assert home.last_start() == {"API_PORT": "8989", "DATA_API_ROWS": "20000"}


def test_the_record_is_readable_by_its_owner_only(home: Home, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "started-with.json").stat().st_mode) == 0o600


def test_a_damaged_record_counts_as_missing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "started-with.json").write_text("{")
    assert home.last_start() == {}


@pytest.mark.parametrize(
    ("caller", "rows"),
    [({}, "20000"), ({"DATA_API_ROWS": "500"}, "500"), ({"DATA_API_ROWS": ""}, "")],
    ids=["not named", "named", "named as empty"],
)
def test_a_restart_keeps_the_source_unless_the_caller_names_another(
    caller: dict[str, str], rows: str, home: Home
) -> None:
    assert home.resumed(caller)["DATA_API_ROWS"] == rows


def test_ports_come_from_the_caller_only(home: Home) -> None:
    assert "API_PORT" not in home.resumed({})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"PATH": "/usr/bin"}, []),
        ({"API_PORT": "1"}, ["API_PORT was 8989, is 1"]),
        ({"DATA_API_ROWS": ""}, ["DATA_API_ROWS was 20000, is not set"]),
        ({"DOSEL_AIRFLOW_PASSWORD": "pst"}, ["DOSEL_AIRFLOW_PASSWORD was not set, is hidden"]),
        ({"DOSEL_WAREHOUSE_URL": "mysql://u:p@h/d"}, ["DOSEL_WAREHOUSE_URL was not set, is mysql://u:…@h/d"]),
        ({"SLICE_BY": "group"}, ["SLICE_BY was not set, is group"]),
    ],
)
def test_a_difference_names_both_values(change: dict[str, str], expected: list[str], home: Home) -> None:
    assert home.differences(FIRST | change) == expected


def test_differences_can_be_limited_to_settings_of_the_source(home: Home) -> None:
    changed = FIRST | {"API_PORT": "1", "BATCH_FRACTION": "1"}
    assert home.differences(changed, SOURCE) == ["BATCH_FRACTION was not set, is 1"]


def test_data_that_was_set_aside_is_a_complete_home(home: Home, tmp_path: Path) -> None:
    fill(tmp_path)
    assert home.has_rows()
    aside = home.set_aside()
    assert not home.has_rows()
    assert home.last_start() == {}
    assert Home(aside).last_start() == {"API_PORT": "8989", "DATA_API_ROWS": "20000"}
    assert (aside / "warehouse.db").read_text() == "rows"
    assert {path.name for path in aside.iterdir() if path.is_dir()} == set(PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["former"]


def test_forget_keeps_files_that_are_not_dosels(home: Home, tmp_path: Path) -> None:
    fill(tmp_path)
    home.set_aside()
    fill(tmp_path)
    (tmp_path / "mine.txt").touch()
    home.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_forget_removes_the_folder_if_only_dosels_files_are_in_it(home: Home, tmp_path: Path) -> None:
    fill(tmp_path)
    home.forget()
    assert not tmp_path.exists()
