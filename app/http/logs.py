"""What the service says of itself, a JSON object a line."""

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

_encoded = msgspec.json.Encoder().encode


class AccessLog:
    """Lines about answers, written together: a write for each would cost more than the answer does."""

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
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 3),
        }
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
    """A log record as a JSON object; a traceback goes along as text."""

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
    """Has this process log in JSON: what uvicorn says, what dosel says, and warnings of everybody else."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        # Our own access log has a line for each answer already.
        logging.getLogger(name).propagate = name != "uvicorn.access"
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("uvicorn", "dosel", "app"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Each look at an MLflow that is away would have its retries told here; `serving` tells once that it is away.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
