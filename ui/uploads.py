"""Limits the files that browsers upload to the page: Streamlit keeps each in memory until its session ends.

A session needs no key, so that anybody who reaches the page's port could fill its memory.
"""

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 400_000_000
"""All files together: twice the largest one (`maxUploadSize` in .streamlit/config.toml)."""

LEAST_BYTES = 65_536
"""A kept file counts as at least this many bytes, so that the number of files is bounded, too."""

ROUTE = "/_stcore/upload_file/"


class UploadLimit:
    """ASGI middleware that refuses an upload while the page has no room for it, by the bytes that have arrived."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._arrived = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or ROUTE not in scope["path"]:
            await self._app(scope, receive, send)
            return
        headers, mine = Headers(scope=scope), 0
        length = headers.get("content-length", "")

        async def bounded() -> Message:
            nonlocal mine
            message = await receive()
            count = len(message.get("body", b""))
            mine, self._arrived = mine + count, self._arrived + count
            # Several that were let in together may be too many.
            return message if self._has_room_for(0) else {"type": "http.disconnect"}

        if not length.isdecimal() or "transfer-encoding" in headers:
            await PlainTextResponse("write the header Content-Length", 411)(scope, receive, send)
        elif not self._has_room_for(int(length)):
            text = "the page has no memory for this file now; close the pages with large files, and try again later"
            await PlainTextResponse(text, 503)(scope, receive, send)
        else:
            try:
                await self._app(scope, bounded, send)
            finally:
                self._arrived -= mine

    def _has_room_for(self, count: int) -> bool:
        return kept_bytes() + self._arrived + count <= MOST_BYTES


def kept_bytes() -> int:
    """The bytes of all files that the page keeps, also for sessions that have just ended; small ones count as more."""
    from streamlit.runtime import get_instance

    manager: Any = get_instance().uploaded_file_mgr
    kept = [file for files in list(manager.file_storage.values()) for file in list(files.values())]
    return sum(max(len(file.data), LEAST_BYTES) for file in kept)
