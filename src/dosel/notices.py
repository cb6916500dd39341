"""Notices of libraries about what dosel does on purpose, by library and text; all other warnings stay."""

import logging
import re
import sys
import warnings
from typing import TextIO

_NOTICES = re.compile(
    # MLflow warns of integers in a signature; they are intended.
    "Hint: Inferred schema contains integer"
    # skl2onnx reads both attributes of a support vector machine.
    "|Attribute `prob[AB]_` was deprecated"
    # A forest read the process's filters while another thread's forest had emptied them to set its own.
    r"|`sklearn\.utils\.parallel\.delayed` should be used with"
)


def leave_out_notices() -> None:
    """Keep these notices out of this process's output, such as the logs of Airflow's tasks."""
    # httpx logs a line for each call.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # MLflow logs a new experiment to stderr, which Airflow shows as an error.
    logging.getLogger("mlflow.tracking.fluent").setLevel(logging.WARNING)
    shown = warnings.showwarning
    if isinstance(shown, _Shown) or sys.warnoptions:
        return
    # Filters alone are not enough: libraries change them in several threads at once, and the list that one of them
    # restores may be another one's.
    warnings.showwarning = _Shown(shown)


class _Shown:
    """Shows warnings, except the notices above and, as Python's own filters, deprecations."""

    def __init__(self, show: object) -> None:
        assert callable(show)
        self._show = show

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, DeprecationWarning) and not _NOTICES.match(str(message)):
            self._show(message, category, filename, lineno, file, line)
