"""The held-out rows that none of the compared versions was trained on, and the gate's looks at them before.

A version of the present split was trained on no held-out row. A version of an earlier split may have been trained on
rows that are held out now. It is therefore judged only on rows that its own split also held out, or that arrived after
its training.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from dosel.model import tags
from dosel.registry.evaluations import JudgedRows
from dosel.registry.looks import Look, PastLook, share
from dosel.registry.store import ModelVersion
from dosel.rows import hashing, splits
from dosel.usecases import UseCase

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Trained:
    """A training with another split: the use case with that split, and the ids of its batches; None if unproven."""

    then: UseCase
    batches: frozenset[int] | None


class UnseenRows:
    """The held-out rows for a comparison of versions.

    Args:
        clean_rows: gives all clean rows, part by part, each time that it is called.
        versions: those that are compared.
        block: the number of rows that are compared is a multiple of it; the newest rows are left out.
    """

    def __init__(
        self,
        use_case: UseCase,
        clean_rows: Callable[[], Iterable[pd.DataFrame]],
        versions: Sequence[ModelVersion],
        block: int = 1,
    ) -> None:
        self._use_case = use_case
        self._clean_rows = clean_rows
        self._block = block
        self._split = splits.split_version(use_case)
        self._trained: dict[str, _Trained] = {
            text: _Trained(replace(use_case, split=split), self._batches_of(version))
            for version in versions
            if (text := version.tags.get(tags.SPLIT_VERSION, self._split)) != self._split
            and (split := splits.split_of(use_case, text)) is not None
        }

    def parts(self) -> Iterable[pd.DataFrame]:
        """The rows, part by part; read again each time only if they may outgrow memory."""
        return self._unseen() if self._use_case.is_partitioned else self._kept

    def judged(self, challenger: ModelVersion, champion: ModelVersion | None, past: Sequence[PastLook]) -> JudgedRows:
        """The rows' classes and groups, and the look at them that a comparison is.

        Args:
            past: all looks of the model, oldest first.
        """
        use_case, seen, last_batch = self._use_case, Counter[PastLook](), 0
        truth: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        groups = {name: [np.zeros(0, np.str_)] for name in use_case.groups}
        for part in self.parts():
            truth.append(part[use_case.target.name].to_numpy(dtype=np.int64))
            for name, values in groups.items():
                values.append(part[name].fillna("").to_numpy(dtype=np.str_))
            batches = part["batch_id"].to_numpy(dtype=np.int64)
            last_batch = max(last_batch, int(batches.max()))
            held_out = {look.split: self._was_held_out(look.split, part) for look in past}
            for look in past:
                so_far = batches <= (last_batch if look.last_batch is None else look.last_batch)
                seen[look] += int((held_out[look.split] & so_far).sum())
        classes = np.concatenate(truth)
        rows, number = len(classes), champion.version if champion else 0
        mine = PastLook(challenger.version, challenger.run_id, number, self._split, rows, last_batch)
        # A comparison that is repeated after a kill is the same look.
        before = past[: past.index(mine)] if mine in past else past
        times = sum(seen[look] for look in before) / max(rows, 1)
        count, of = sum(look.split == self._split for look in before), use_case.gate.looks
        now = Look(count + 1, of, times, share(of, times), last_batch)
        known = {name: np.concatenate(values) for name, values in groups.items()}
        return JudgedRows(classes, self._split, now, frozenset(self._trained), known)

    @cached_property
    def _kept(self) -> list[pd.DataFrame]:
        return list(self._unseen())

    def _unseen(self) -> Iterator[pd.DataFrame]:
        return self._read() if self._block == 1 else _whole_blocks(self._read(), self._block)

    def _read(self) -> Iterator[pd.DataFrame]:
        for part in self._clean_rows():
            chosen = hashing.is_held_out(self._use_case, part)
            for trained in self._trained.values():
                chosen &= _was_unseen(trained, part)
            if chosen.any():
                yield part[chosen]

    def _was_held_out(self, split: str, part: pd.DataFrame) -> Mask:
        if split == self._split or (then := splits.split_of(self._use_case, split)) is None:
            # Of a split that cannot be computed now, the gate may have looked at any row.
            return np.ones(len(part), dtype=np.bool_)
        return hashing.is_held_out(replace(self._use_case, split=then), part)

    def _batches_of(self, version: ModelVersion) -> frozenset[int] | None:
        """The batches that a version was trained on; None unless their rows have the digest of its training.

        After `dosel reset`, the same rows are in batches of other numbers.
        """
        if not version.attested:
            return None
        batches = frozenset(map(int, json.loads(version.tags.get(tags.BATCH_IDS, "[]"))))
        keys = [part.loc[part["batch_id"].isin(batches), "row_key"].to_numpy(np.int64) for part in self._clean_rows()]
        digest = hashing.digest(np.concatenate([np.zeros(0, np.int64), *keys]))
        return batches if digest == version.tags.get(tags.DATA_DIGEST) else None


def _whole_blocks(parts: Iterable[pd.DataFrame], size: int) -> Iterator[pd.DataFrame]:
    rest: list[pd.DataFrame] = []
    for part in parts:
        rows = pd.concat([*rest, part])
        whole = len(rows) // size * size
        if whole:
            yield rows[:whole]
        rest = [rows[whole:]]


def _was_unseen(trained: _Trained, part: pd.DataFrame) -> Mask:
    held_out = hashing.is_held_out(trained.then, part)
    if trained.batches is None:
        return held_out
    return held_out | ~part["batch_id"].isin(trained.batches).to_numpy()
