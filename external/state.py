"""How far each group has come, kept on disk so that neither a restart nor a kill loses it.

`timestamps.json` has the course's format, `{"1": [timestamp, batch], ...}`, with `[0, -1]` for a group that has not
begun. What the course's API does not know lies beside it in `generations.json`: the token of this state folder and,
for each group, how often its generation was restarted and how many samples its current batch has given.
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
    """The group has had its tenth batch."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self.epoch = epoch


class Position(NamedTuple):
    """What one call is to be answered with.

    Attributes:
        group: 1 to 10.
        batch: 1 to 10.
        restarts: how often the group had been restarted.
        draw: how many samples of this batch were given before this one.
        epoch: names the generation; never the same again after a restart, nor in another state folder.
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
    """The progress of the ten groups; safe to use from many threads, and held by one process at a time.

    Args:
        folder: where the files lie; made if missing.
        window: seconds a batch lasts; 0 makes each call the next batch.
        clock: seconds since the epoch.

    Raises:
        StartError: the folder cannot be written, another process holds it, or a file in it makes no sense.
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
            self._held = _hold(folder / "lock")
        except OSError as error:
            raise StartError(f"DATA_API_STATE_DIR: {folder} cannot be used: {error.strerror}") from None
        try:
            self._positions: dict[int, _Position] = dict.fromkeys(GROUPS, (0, -1))
            positions = _read(self._timestamps_file, _parse_positions)
            self._positions |= positions or {}
            generations = _read(self._generations_file, _Generations.model_validate_json)
            if positions is None or generations is None:
                # Whoever deletes timestamps.json starts every group over, and the epochs must tell.
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
        """Answers one call: makes the answer first and counts it afterwards, so that a failure costs no batch.

        Args:
            group: 1 to 10.
            make: turns the turn into the answer. Calls for one group wait for each other.

        Raises:
            Exhausted: the group has had its tenth batch.
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
        """Sends the group back to the beginning and returns its new epoch."""
        with self._groups[group]:
            restarts = self._generations.groups[group].restarts + 1
            self._move(group, (0, -1), _Progress(restarts=restarts))
            return self._epoch(group)

    def close(self) -> None:
        """Lets go of the folder."""
        self._held.close()

    def _epoch(self, group: int) -> str:
        return f"{self._generations.token}-{self._generations.groups[group].restarts}"

    def _move(self, group: int, position: _Position, progress: _Progress) -> None:
        """Changes one group, on disk before in memory: what could not be written did not happen."""
        with self._files:
            before = self._positions[group], self._generations.groups[group]
            self._positions[group], self._generations.groups[group] = position, progress
            try:
                self._write()
            except OSError:
                self._positions[group], self._generations.groups[group] = before
                raise

    def _write(self) -> None:
        # The generations first. Cut off between the two, a restart shows a new epoch at the old batch and can be asked
        # for again; the other way round the old epoch would count from 1 a second time.
        _replace(self._generations_file, self._generations.model_dump(mode="json"))
        _replace(self._timestamps_file, {str(group): list(at) for group, at in self._positions.items()})


def _parse_positions(text: bytes) -> dict[int, _Position]:
    positions = _TIMESTAMPS.validate_json(text)
    for group, (timestamp, batch) in positions.items():
        if group not in GROUPS or timestamp < 0 or not -1 <= batch <= BATCHES:
            raise ValueError(f"group {group} cannot stand at {[timestamp, batch]}")
    return positions


def _read(path: Path, parse: Callable[[bytes], Result]) -> Result | None:
    """What a state file holds, or None if there is none yet."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StartError(f"DATA_API_STATE_DIR: {path} is damaged: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise StartError(f"DATA_API_STATE_DIR: {path} is damaged: {error}") from None


def _replace(path: Path, content: Any) -> None:
    """Writes a file whole or not at all, even if the machine stops in the middle."""
    # One name is enough, as one process holds the folder, and what a kill leaves behind is written over.
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


def _hold(path: Path) -> Any:
    """An open file nobody else holds; the kernel lets go of it when the process ends, however it ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StartError(f"DATA_API_STATE_DIR: another data API is using {path.parent}") from None
    return file
