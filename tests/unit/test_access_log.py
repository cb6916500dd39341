"""The access log: one JSON line for each answer."""

import asyncio
import io
import json

from app.http.logs import MOST_PATH, AccessLog


def test_a_long_path_is_cut() -> None:
    stream = io.StringIO()

    async def answered() -> None:
        log = AccessLog(stream)
        log.write({"type": "http", "method": "GET", "path": "/" + "x" * 32_000}, 404, 0.0015)
        log.flush()

    asyncio.run(answered())
    line = json.loads(stream.getvalue())
    assert (line["method"], line["status"], line["ms"]) == ("GET", 404, 1.5)
    assert line["path"] == "/" + "x" * (MOST_PATH - 1)
