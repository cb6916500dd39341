"""The short way for one acceptable row, around the framework: read, answer, send.

It takes only what it can answer at once. Everything else, and above all what has to be refused, goes the long
way through FastAPI, which checks it with the documented model and says what was wrong.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.body_limits import BODY_TIMEOUT_SECONDS
from app.reading import REFUSED, RowReader
from app.serving.follower import ModelFollower
from app.serving.loaded_model import STALE
from app.serving.prediction_log import LogEntry, PredictionLog
from dosel.usecases import UseCase

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class _Lane:
    use_case: UseCase
    reader: RowReader
    may_name_model: bool


class FastLane:
    """Answers `POST` of a row to the paths of `use_cases`; hands on what it does not answer, unchanged."""

    def __init__(
        self,
        app: ASGIApp,
        follower: ModelFollower,
        use_cases: Sequence[UseCase],
        default: UseCase,
        limit: int,
        record: PredictionLog,
    ) -> None:
        self._app = app
        self._follower = follower
        self._limit = limit
        self._record = record
        self._lanes = {f"/predict/{u.name}": _Lane(u, RowReader(u), may_name_model=False) for u in use_cases}
        self._lanes["/predict"] = _Lane(default, RowReader(default), may_name_model=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = self._lanes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None or scope["query_string"] or not self._is_plain(scope):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                message = await receive()
        except TimeoutError:
            # The long way would wait as long again: the client is gone for all we know.
            return
        if message["type"] == "http.request" and not message.get("more_body", False):
            answer = self._answer(lane, message["body"], scope)
            if answer is not None:
                scope["dosel.route"] = scope["path"]
                headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
                if self._follower.stale(lane.use_case):
                    headers.append((STALE.lower().encode(), b"true"))
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": answer})
                return
        await self._app(scope, _again(message, receive), send)

    def _is_plain(self, scope: Scope) -> bool:
        """Whether the headers promise a JSON body of a size that is read."""
        length = 0
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 12 else 0
            elif name == b"content-type" and value != b"application/json":
                return False
        return 0 < length <= self._limit

    def _answer(self, lane: _Lane, body: bytes, scope: Scope) -> bytes | None:
        served = self._follower.loaded(lane.use_case)
        if served is None:
            return None
        try:
            numbers, codes, model = lane.reader.one(body, lane.may_name_model)
            if model and model != lane.use_case.model_name:
                return None
            prediction = served.predictor.one(numbers, codes)
        except REFUSED:
            return None
        except Exception:
            log.exception("the short way failed where the long one may not; that is a fault")
            return None
        self._record.offer(LogEntry.of(scope, lane.use_case, served.version, body, prediction.prediction))
        # The object without its closing brace, then which model it was, encoded once a version.
        return b"".join((msgspec.json.encode(prediction)[:-1], served.signature))


def _again(first: Message, receive: Receive) -> Receive:
    """A `receive` that gives `first` once more, then goes on."""
    pending = [first]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
