"""Writes answers to the data store: the prediction log's, and those of versions in shadow."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from app.serving.prediction_log import LogEntry
from app.serving.shadow_scorer import answers_of
from dosel.rows.columns import Columns
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes a second, in which the app can already answer /healthz.
    from sqlalchemy import Engine

    from dosel.warehouse.predictions import AnswerRecord, PredictionStore
    from dosel.warehouse.shadow_answers import ShadowAnswerStore


class AnswerWriter(Protocol):
    """Stores all answers of a call, or none. Several threads may call it.

    Each call raises a WarehouseError while the data store cannot be reached, and another exception if the data store
    does not accept one of the answers.
    """

    def answers(self, entries: list[LogEntry]) -> None:
        """Add to the prediction log."""

    def in_shadow(self, blocks: list[bytes]) -> None:
        """Add answers of versions in shadow, encoded as in `Scored`."""

    def close(self) -> None:
        """Release what the writer holds."""


class DirectWriter:
    """An `AnswerWriter` that writes in the calling thread, up to `most_rows` rows of the prediction log."""

    def __init__(self, warehouse_url: str, most_rows: int, use_cases: Sequence[UseCase]) -> None:
        self._warehouse_url = warehouse_url
        self._most_rows = most_rows
        self._use_cases: Mapping[str, UseCase] = {use_case.name: use_case for use_case in use_cases}

    def answers(self, entries: list[LogEntry]) -> None:
        self._predictions.append(records(self._use_cases, entries))

    def in_shadow(self, blocks: list[bytes]) -> None:
        self._shadow_answers.append([answer for block in blocks for answer in answers_of(block)])

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()

    @cached_property
    def _engine(self) -> "Engine":
        from dosel.db.engine import connect

        return connect(self._warehouse_url)

    @cached_property
    def _predictions(self) -> "PredictionStore":
        from dosel.warehouse.predictions import PredictionStore

        return PredictionStore(self._engine, self._most_rows)

    @cached_property
    def _shadow_answers(self) -> "ShadowAnswerStore":
        from dosel.warehouse.shadow_answers import ShadowAnswerStore

        return ShadowAnswerStore(self._engine)


class _Answer(msgspec.Struct):
    """What is kept of a `Prediction`."""

    prediction: int
    probabilities: msgspec.Raw


_encoded = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder(_Answer).decode


def records(use_cases: Mapping[str, UseCase], entries: Sequence[LogEntry]) -> "list[AnswerRecord]":
    """The entries as they are stored."""
    by_use_case: dict[str, list[LogEntry]] = {}
    for entry in entries:
        by_use_case.setdefault(entry.use_case, []).append(entry)
    return [record for name, mine in by_use_case.items() for record in _records_of(use_cases[name], mine)]


def _records_of(use_case: UseCase, entries: Sequence[LogEntry]) -> "Iterator[AnswerRecord]":
    from dosel.rows.hashing import feature_keys
    from dosel.warehouse.predictions import AnswerRecord

    numbers = np.array([entry.numbers for entry in entries], np.float64).reshape(len(entries), -1)
    codes = np.array([entry.codes for entry in entries], np.intp).reshape(len(entries), -1)
    keys = feature_keys(use_case, Columns(numbers, codes)).tolist()
    names = [number.name for number in use_case.numbers] + [category.name for category in use_case.categories]
    # The last one is that of a missing value, whose code is -1; a missing number is null in JSON, too.
    words = [(*category.values, None) for category in use_case.categories]
    for entry, key in zip(entries, keys, strict=True):
        answer = _decoded(entry.answer)
        texts = [values[code] for values, code in zip(words, entry.codes, strict=True)]
        yield AnswerRecord(
            entry.request_id,
            entry.row_no,
            entry.rows,
            entry.trace_id,
            entry.at,
            entry.use_case,
            entry.model,
            entry.version,
            _encoded(dict(zip(names, (*entry.numbers, *texts), strict=True))).decode(),
            key,
            bytes(answer.probabilities).decode(),
            answer.prediction,
        )
