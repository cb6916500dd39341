"""The page refuses an upload while it has no memory for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ui import uploads
from ui.uploads import MOST_BYTES, UploadLimit

FILE = f"{uploads.ROUTE}a-session/a-file"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the number of bytes that the page keeps."""

    def keep(count: int) -> None:
        monkeypatch.setattr(uploads, "kept_bytes", lambda: count)

    keep(0)
    return keep


async def passed(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asked(limit: UploadLimit, length: str | None, path: str = FILE, method: str = "PUT") -> int:
    """The status of a request."""
    headers = [] if length is None else [(b"content-length", length.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(limit(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("length", "already", "status"),
    [
        (str(MOST_BYTES), 0, 204),
        (str(MOST_BYTES + 1), 0, 503),
        ("1", MOST_BYTES - 1, 204),
        ("1", MOST_BYTES, 503),
        (None, 0, 411),
        ("-1", 0, 411),
        ("1e3", 0, 411),
    ],
)
def test_files_of_all_sessions_together_are_bounded(
    kept: Callable[[int], None], length: str | None, already: int, status: int
) -> None:
    kept(already)
    assert asked(UploadLimit(passed), length) == status


def test_other_requests_pass(kept: Callable[[int], None]) -> None:
    kept(MOST_BYTES)
    assert asked(UploadLimit(passed), None, path="/") == 204
    assert asked(UploadLimit(passed), None, method="DELETE") == 204


def test_files_that_still_arrive_count(kept: Callable[[int], None]) -> None:
    seen: list[int] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if not seen:
            seen.append(0)
            seen.append(await status_of_another())
        await passed(scope, receive, send)

    async def status_of_another() -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-length", str(MOST_BYTES).encode())]
        await limit({"type": "http", "method": "PUT", "path": FILE, "headers": headers}, None, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    limit = UploadLimit(slow)
    assert asked(limit, "1") == 204
    assert seen == [0, 503]
    # It has arrived.
    assert asked(limit, str(MOST_BYTES)) == 204
