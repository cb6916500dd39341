"""The embedded platform's folder: the settings of the last start, and removing or moving its data."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from dosel.credentials import KEY_FILE, NEWEST_ENTRIES
from dosel.errors import StartupError
from dosel.files import replace_file
from dosel.settings import Settings

PARTS = (
    "airflow",
    "cache",
    "data-api",
    "drill",
    "environments",
    "lake",
    "logs",
    "looks",
    "mlflow",
    "reads",
    "run",
    "serving",
)
"""What `make clean` deletes; earlier versions have left `looks`."""
FORMER = "former"
SECRET = re.compile("PASSWORD|SECRET|KEY")
SOURCE = (
    *("BATCH_FRACTION", "DATA_API_CSV", "DATA_API_CSV_CLASSES", "DATA_API_ROWS", "DATA_API_SEED", "SLICE_BY"),
    "DOSEL_FILES",
)
"""Settings that decide which rows are served: the data API's, and files that replace sources."""


class Home:
    """The folder, and the settings recorded in it.

    A start records its settings. While services run, the record says how to reach them. Afterwards a start that names
    no source uses the recorded one, so that it continues with the same rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "started-with.json"

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Let one process at a time start the platform. A process that is killed leaves no lock behind.

        Raises:
            StartupError: another process is starting it now.
        """
        file = self._folder / "run" / "starting.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise StartupError(
                    f"another process ({lock.read() or 'unknown'}) is starting the platform in {self._folder}: wait "
                    "until it is ready, or stop it with `make down`"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def last_start(self) -> dict[str, str]:
        """The settings of the last start, under their environment variables' names; empty before the first."""
        try:
            settings: dict[str, str] = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return settings

    def remember(self, caller: Mapping[str, str]) -> None:
        # The file contains Airflow's password.
        replace_file(self._record, json.dumps(_given(caller), indent=1))

    def resumed(self, caller: Mapping[str, str]) -> dict[str, str]:
        """The caller's environment, with the last start's source settings where the caller sets none."""
        last = self.last_start()
        return {name: last[name] for name in SOURCE if name in last} | dict(caller)

    def differences(self, caller: Mapping[str, str], names: Collection[str] | None = None) -> list[str]:
        """Describe how the caller's settings, all or those named, differ from the last start's."""
        last, now = self.last_start(), _given(caller)
        differing = sorted(name for name in last.keys() | now.keys() if last.get(name) != now.get(name))
        return [
            f"{name} was {_shown(name, last)}, is {_shown(name, now)}"
            for name in differing
            if names is None or name in names
        ]

    def has_rows(self) -> bool:
        """Whether rows were pulled before."""
        return (self._folder / "data-api").exists()

    def forget(self) -> None:
        """Remove the platform's files by name, since the folder may contain other files too."""
        for name in (*PARTS, FORMER):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for file in self._files():
            file.unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def set_aside(self) -> Path:
        """Move the platform's files to a new folder, which can be used as a home, and return it."""
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
            *self._folder.glob(KEY_FILE),
            *self._folder.glob(f"{NEWEST_ENTRIES}*"),
            *self._folder.glob(f"{self._record.name}*"),
        ]


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that decide how the services run; empty ones count as not set."""
    ours = [str(field.validation_alias) for field in Settings.model_fields.values()]
    names = {*ours, *SOURCE, "DATA_API_FETCH", "MIN_UPDATE_TIME"} - {"DOSEL_HOME"}
    return {name: environment[name] for name in sorted(names) if environment.get(name)}


def _shown(name: str, settings: Mapping[str, str]) -> str:
    """A setting's value for a terminal, without passwords."""
    if name not in settings:
        return "not set"
    return "hidden" if SECRET.search(name) else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", settings[name])
