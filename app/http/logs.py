"""The service's logs: one JSON object per line."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from starlette.types import Scope

FLUSH_SECONDS = 0.2
MOST_LINES = 1_000

MOST_PATH = 500
"""Characters of a path in the log; a client may send 32,000."""

_encoded = msgspec.json.Encoder().encode


class AccessLog:
    """The access log. Lines are written in groups, since a write for each would cost more than the answer."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._second = 0
        self._stamp = ""

    def write(self, scope: Scope, status: int, seconds: float) -> None:
        line = {
            "time": self._now(),
            "level": "info",
            "message": "answered",
            "request_id": scope.get("dosel.request_id"),
            "client": (scope.get("client") or (None,))[0],
            "method": scope["method"],
            "path": scope["path"][:MOST_PATH],
            "status": status,
            "ms": round(seconds * 1000, 3),
        }
        if trace_id := scope.get("dosel.trace_id"):
            line["trace_id"] = trace_id
        self._lines.append(_encoded(line))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._lines) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            stream = self._stream or sys.stdout
            stream.write(b"\n".join((*lines, b"")).decode("utf-8", "replace"))
            stream.flush()

    def _now(self) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = datetime.fromtimestamp(self._second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._stamp}{int(now % 1 * 1000):03d}Z"


class JsonFormatter(logging.Formatter):
    """Formats a log record as a JSON object, with a traceback as text."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encoded(line).decode()


def write_json() -> None:
    """Make this process log JSON: uvicorn's and dosel's messages, and the warnings of other libraries."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        # `AccessLog` already writes a line for each answer.
        logging.getLogger(name).propagate = name != "uvicorn.access"
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("uvicorn", "dosel", "app"):
        logging.getLogger(name).setLevel(logging.INFO)
    # urllib3 would log every retry while MLflow is down; the follower logs once that it is down.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
