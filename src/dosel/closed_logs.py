"""Logs about a closed use case without its figures: a person who may read a task's log may not always read its rows."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dosel.closed import without_figures
from dosel.errors import DoselError
from dosel.usecases import UseCase


@contextmanager
def without_figures_of(use_case: UseCase) -> Iterator[None]:
    """Leave out the figures of a closed use case in all that dosel logs in this process, and in errors.

    An exact figure before and after one more row would show the row's class. Another library's error may quote a row:
    its text and its causes are left out.

    Raises:
        DoselError: instead of such an error.
    """
    if use_case.expose_training_rows:
        yield
        return
    before = logging.getLogRecordFactory()

    def record(*args: Any, **given: Any) -> logging.LogRecord:
        made = before(*args, **given)
        # `logging.makeLogRecord` makes records without a name.
        if str(made.name).partition(".")[0] == "dosel":
            made.msg, made.args, made.exc_info = without_figures(made.getMessage()), (), None
        return made

    logging.setLogRecordFactory(record)
    try:
        yield
    except DoselError as error:
        error.args = tuple(without_figures(part) if isinstance(part, str) else part for part in error.args)
        raise error.with_traceback(None) from None
    except Exception as error:
        if type(error).__module__.startswith("airflow."):
            # Airflow's own, by which a task is skipped, for example.
            raise
        [*_, last] = traceback.extract_tb(error.__traceback__)
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise DoselError(f"{type(error).__name__} in {place}; its text is left out, since it may quote a row") from None
    finally:
        logging.setLogRecordFactory(before)
