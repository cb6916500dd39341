"""The position of each group, on disk, so that restarts and kills do not lose it.

`timestamps.json` has the course's format, `{"1": [timestamp, batch], ...}`, with `[0, -1]` for a group that has not
started. `generations.json` has what the course's API lacks: the token of this state folder and, for each group, the
number of restarts and the number of samples that its current batch has given.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from external.settings import StartError

GROUPS = range(1, 11)
BATCHES = 10

Result = TypeVar("Result")


class Exhausted(Exception):
    """The group has received its tenth batch."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self.epoch = epoch


class Position(NamedTuple):
    """The position that one call is answered with.

    `group` and `batch` are 1 to 10. `restarts` counts the group's restarts, `draw` the earlier samples of this batch.
    `epoch` is unique over restarts and state folders.
    """

    group: int
    batch: int
    restarts: int
    draw: int
    epoch: str


class _Progress(BaseModel):
    restarts: int = Field(default=0, ge=0)
    draws: int = Field(default=0, ge=0)


class _Generations(BaseModel):
    token: str = Field(default_factory=lambda: secrets.token_hex(8), pattern="^[0-9a-f]{16}$")
    groups: dict[int, _Progress] = Field(default_factory=dict)


_Position = tuple[float, int]
_TIMESTAMPS = TypeAdapter(dict[int, _Position])


class State:
    """The positions of the ten groups. Thread-safe; one process at a time can open it.

    Args:
        folder: folder of the files; created if missing.
        window: seconds that a batch lasts; 0 makes each call the next batch.
        clock: seconds since 1970.

    Raises:
        StartError: the folder cannot be written, another process uses it, or a file in it is damaged.
    """

    def __init__(self, folder: Path, window: float, clock: Callable[[], float] = time.time) -> None:
        self._window = window
        self._clock = clock
        self._timestamps_file = folder / "timestamps.json"
        self._generations_file = folder / "generations.json"
        self._groups = {group: threading.Lock() for group in GROUPS}
        self._files = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = _lock(folder / "lock")
        except OSError as error:
            raise StartError(f"DATA_API_STATE_DIR: {folder} cannot be used: {error.strerror}") from None
        try:
            self._positions: dict[int, _Position] = dict.fromkeys(GROUPS, (0, -1))
            positions = _read(self._timestamps_file, _parse_positions)
            self._positions |= positions or {}
            generations = _read(self._generations_file, _Generations.model_validate_json)
            if positions is None or generations is None:
                # Without timestamps.json every group starts over, which needs new epochs.
                generations = _Generations()
            self._generations = generations
            for group in GROUPS:
                self._generations.groups.setdefault(group, _Progress())
            self._write()
        except StartError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise StartError(f"DATA_API_STATE_DIR: {folder} cannot be used: {error.strerror}") from None

    def take(self, group: int, make: Callable[[Position], Result]) -> Result:
        """Answer one call: create the answer first and count it afterwards, so that a failure costs no batch.

        Calls for one group wait for each other.

        Raises:
            Exhausted: the group has received its tenth batch.
        """
        with self._groups[group]:
            timestamp, batch = self._positions[group]
            progress = self._generations.groups[group]
            if batch >= BATCHES:
                raise Exhausted(self._epoch(group))
            now = self._clock()
            draws = progress.draws
            # With no window at all, two calls within one tick of the clock are still two batches.
            if batch < 1 or self._window == 0 or now - timestamp > self._window:
                timestamp, batch, draws = now, max(batch, 0) + 1, 0
            answer = make(Position(group, batch, progress.restarts, draws, self._epoch(group)))
            self._move(group, (timestamp, batch), _Progress(restarts=progress.restarts, draws=draws + 1))
            return answer

    def restart(self, group: int) -> str:
        """Restart the group and return its new epoch."""
        with self._groups[group]:
            restarts = self._generations.groups[group].restarts + 1
            self._move(group, (0, -1), _Progress(restarts=restarts))
            return self._epoch(group)

    def close(self) -> None:
        """Release the folder."""
        self._lock_file.close()

    def _epoch(self, group: int) -> str:
        return f"{self._generations.token}-{self._generations.groups[group].restarts}"

    def _move(self, group: int, position: _Position, progress: _Progress) -> None:
        """Change one group, on disk before in memory; a failed write changes nothing."""
        with self._files:
            before = self._positions[group], self._generations.groups[group]
            self._positions[group], self._generations.groups[group] = position, progress
            try:
                self._write()
            except OSError:
                self._positions[group], self._generations.groups[group] = before
                raise

    def _write(self) -> None:
        # The generations first. Killed between the two files, a restart leaves a new epoch at the old batch and can be
        # repeated; in the other order the old epoch would count from 1 again.
        _replace(self._generations_file, self._generations.model_dump(mode="json"))
        _replace(self._timestamps_file, {str(group): list(at) for group, at in self._positions.items()})


def _parse_positions(text: bytes) -> dict[int, _Position]:
    positions = _TIMESTAMPS.validate_json(text)
    for group, (timestamp, batch) in positions.items():
        if group not in GROUPS or timestamp < 0 or not -1 <= batch <= BATCHES:
            raise ValueError(f"group {group} has the invalid position {[timestamp, batch]}")
    return positions


def _read(path: Path, parse: Callable[[bytes], Result]) -> Result | None:
    """The content of a state file, or None if there is none yet."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StartError(f"DATA_API_STATE_DIR: {path} is damaged: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise StartError(f"DATA_API_STATE_DIR: {path} is damaged: {error}") from None


def _replace(path: Path, content: Any) -> None:
    """Write a file atomically, even if the machine stops in the middle."""
    # One temporary name is enough: one process uses the folder, and overwrites what a killed one left.
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock(path: Path) -> Any:
    """Lock a file for this process; the kernel releases the lock when the process ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StartError(f"DATA_API_STATE_DIR: another data API is using {path.parent}") from None
    return file
