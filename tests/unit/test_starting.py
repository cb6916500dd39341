"""What stands in the way of a start is said before anything is started."""

from pathlib import Path

import pytest
from rich.console import Console

from dosel.client import Client
from dosel.embedded.processes import Processes
from dosel.embedded.up import Platform
from dosel.errors import StartupError
from dosel.settings import Settings
from dosel.usecases import ALL


def test_a_use_case_that_the_running_platform_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, *known = ALL
    monkeypatch.setattr(Processes, "leader", lambda *_: object())
    monkeypatch.setattr(Client, "use_cases", lambda _: [{"name": use_case.name} for use_case in known])
    with pytest.raises(StartupError, match=rf"before {new.name} was declared; stop it with `make down`"):
        Platform(Settings(home=tmp_path), {}, Console()).up(detach=True)
