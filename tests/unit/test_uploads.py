"""The page refuses an upload while it has no memory for it."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from ui import uploads
from ui.uploads import LEAST_BYTES, MOST_BYTES, UploadLimit

FILE = f"{uploads.ROUTE}a-session/a-file"
Header = tuple[bytes, bytes]


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


def scope_of(length: str | None, path: str = FILE, method: str = "PUT", extra: Sequence[Header] = ()) -> dict[str, Any]:
    headers = [*extra] if length is None else [(b"content-length", length.encode()), *extra]
    return {"type": "http", "method": method, "path": path, "headers": headers}


def asked(limit: UploadLimit, length: str | None, **given: Any) -> int:
    """The status of a request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(limit(scope_of(length, **given), None, send))  # type: ignore[arg-type]
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


def test_a_body_without_its_length_is_refused(kept: Callable[[int], None]) -> None:
    assert asked(UploadLimit(passed), "1", extra=[(b"transfer-encoding", b"chunked")]) == 411


def test_files_that_still_arrive_count_and_end_when_there_is_no_room(kept: Callable[[int], None]) -> None:
    """Two clients are let in together, and each sends half of what there is room for, and then more."""
    seen: list[str] = []

    async def read(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            seen.append((await receive())["type"])
            await asyncio.sleep(0)
        await passed(scope, receive, send)

    async def half() -> dict[str, Any]:
        return {"type": "http.request", "body": Half(), "more_body": True}

    async def send(message: Any) -> None:
        """The answer does not matter."""

    async def both() -> None:
        limit = UploadLimit(read)
        await asyncio.gather(*(limit(scope_of("1"), half, send) for _ in range(2)))

    asyncio.run(both())
    assert seen == ["http.request", "http.request", "http.disconnect", "http.disconnect"]


class Half(bytes):
    """A body that says it is half of the limit."""

    def __len__(self) -> int:
        return MOST_BYTES // 2


def test_what_streamlit_keeps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = MemoryUploadedFileManager("")
    large = 10 * LEAST_BYTES
    for session, size in (("a", 3), ("b", large)):
        manager.add_file(session, UploadedFileRec(f"file {size}", "rows.csv", "text/csv", bytes(size)))
    monkeypatch.setattr("streamlit.runtime.get_instance", lambda: SimpleNamespace(uploaded_file_mgr=manager))
    assert uploads.kept_bytes() == LEAST_BYTES + large
