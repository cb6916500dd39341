"""The embedded platform's folder: what it was last started with, and how it is emptied or set aside."""

import json
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from dosel.settings import Settings

PARTS = ("airflow", "cache", "data-api", "lake", "logs", "mlflow", "run", "serving")
FORMER = "former"
SECRET = re.compile("PASSWORD|SECRET|KEY")
SOURCE = (
    *("BATCH_FRACTION", "DATA_API_CSV", "DATA_API_CSV_CLASSES", "DATA_API_ROWS", "DATA_API_SEED", "SLICE_BY"),
    "DOSEL_FILES",
)
"""Settings that decide which rows there are: of the data API, and files that are taken instead."""


class Home:
    """The folder, and the settings on record in it.

    A start remembers its settings. While services run, they say how to reach them; afterwards those of the
    source hold until others are named, so that a start without them goes on with the same rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "started-with.json"

    def last_start(self) -> dict[str, str]:
        """The settings of the last start, under their environment variables' names; empty before the first."""
        try:
            settings: dict[str, str] = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return settings

    def remember(self, caller: Mapping[str, str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        half = self._record.with_suffix(".half")
        # It holds Airflow's password.
        half.touch(mode=0o600)
        half.write_text(json.dumps(_given(caller), indent=1))
        half.replace(self._record)

    def resumed(self, caller: Mapping[str, str]) -> dict[str, str]:
        """The caller's environment, with the last start's source where it names none."""
        last = self.last_start()
        return {name: last[name] for name in SOURCE if name in last} | dict(caller)

    def differences(self, caller: Mapping[str, str], names: Collection[str] | None = None) -> list[str]:
        """How the caller's settings, all or those named, differ from the last start's, in words."""
        last, now = self.last_start(), _given(caller)
        differing = sorted(name for name in last.keys() | now.keys() if last.get(name) != now.get(name))
        return [
            f"{name} was {_shown(name, last)}, is {_shown(name, now)}"
            for name in differing
            if names is None or name in names
        ]

    def has_rows(self) -> bool:
        """Whether the source was asked before."""
        return (self._folder / "data-api").exists()

    def forget(self) -> None:
        """Removes what the platform wrote, by name: the folder may be one that holds other things too."""
        for name in (*PARTS, FORMER):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for file in self._files():
            file.unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def set_aside(self) -> Path:
        """Moves what the platform wrote into a folder of its own, which serves as a home again."""
        aside = self._folder / FORMER / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside.mkdir(parents=True)
        for path in [*(self._folder / name for name in PARTS), *self._files()]:
            if path.exists():
                path.rename(aside / path.name)
        return aside

    def _files(self) -> list[Path]:
        return [
            *self._folder.glob("warehouse.db*"),
            *self._folder.glob("studies.db*"),
            *self._folder.glob(f"{self._record.name}*"),
        ]


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """What is set of everything that decides how the services run; empty counts as not set."""
    ours = [str(field.validation_alias) for field in Settings.model_fields.values()]
    names = {*ours, *SOURCE, "DATA_API_FETCH", "MIN_UPDATE_TIME"} - {"DOSEL_HOME"}
    return {name: environment[name] for name in sorted(names) if environment.get(name)}


def _shown(name: str, settings: Mapping[str, str]) -> str:
    """A setting's value for a terminal: without the password it may be, or hold as part of an address."""
    if name not in settings:
        return "not set"
    return "hidden" if SECRET.search(name) else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", settings[name])
