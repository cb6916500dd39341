"""Obstacles to a start are reported before any service is started."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dosel.client import Client
from dosel.db.engine import connect
from dosel.embedded import up
from dosel.embedded.home import Home
from dosel.embedded.processes import Processes
from dosel.embedded.up import Platform
from dosel.errors import StartupError
from dosel.settings import Settings
from dosel.usecases import ALL, RefusedFile
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore


def test_a_new_use_case_is_refused_while_the_platform_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, *known = ALL
    monkeypatch.setattr(Processes, "leader", lambda *_: object())
    monkeypatch.setattr(Client, "use_cases", lambda _: [{"name": use_case.name} for use_case in known])
    with pytest.raises(StartupError, match=rf"before {new.name} was declared; stop it with `make down`"):
        Platform(Settings(home=tmp_path), {}, Console()).up(detach=True)


def platform(tmp_path: Path) -> Platform:
    return Platform(Settings(home=tmp_path), {}, Console(soft_wrap=True))


def test_an_invalid_declaration_is_named_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up, "REFUSED", (RefusedFile("wine.py", ("folds: 1 is too few", "name: ''")),))
    monkeypatch.setattr(up, "chosen", lambda _: ())
    with pytest.raises(StartupError, match="no use case can run"):
        platform(tmp_path).up(detach=True)
    assert capsys.readouterr().out == (
        "not used: wine.py: folds: 1 is too few (and 1 more); `dosel check` lists all problems\n"
    )


def test_tables_that_differ_from_their_declaration_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    BatchStore(connect(settings.warehouse_url), PENGUINS)
    changed = replace(PENGUINS, features=PENGUINS.features[1:])
    monkeypatch.setattr(up, "chosen", lambda _: (changed,))
    with pytest.raises(StartupError, match=r"the tables of penguins do not fit.*island.*reset --drop penguins"):
        platform(tmp_path).up(detach=True)


def test_only_one_process_at_a_time_starts_a_platform(tmp_path: Path) -> None:
    home = Home(tmp_path)
    said = rf"another process \({os.getpid()}\) is starting.*wait.*`make down`"
    with home.starting(), pytest.raises(StartupError, match=said):
        platform(tmp_path).up(detach=True)
    with home.starting():
        pass
