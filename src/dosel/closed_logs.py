"""Logs about a closed use case without its figures: a person who may read a task's log may not always read its rows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dosel.closed import without_figures
from dosel.errors import DoselError
from dosel.usecases import UseCase


@contextmanager
def without_figures_of(use_case: UseCase) -> Iterator[None]:
    """Leave out the figures of a closed use case in all that dosel logs in this process, and in its errors.

    An exact figure before and after one more row would show the row's class.
    """
    if use_case.expose_training_rows:
        yield
        return
    before = logging.getLogRecordFactory()

    def record(*args: Any, **given: Any) -> logging.LogRecord:
        made = before(*args, **given)
        if made.name.partition(".")[0] == "dosel":
            made.msg, made.args = without_figures(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)
    try:
        yield
    except DoselError as error:
        error.args = tuple(without_figures(part) if isinstance(part, str) else part for part in error.args)
        raise
    finally:
        logging.setLogRecordFactory(before)
