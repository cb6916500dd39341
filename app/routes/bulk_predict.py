"""Bulk requests: rows as JSON or CSV, answered in the same format and order."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.http.clients import client_of
from app.http.middleware import changes_production
from app.http.problems import BatchProblem, documented, invalid_rows
from app.routes.dependencies import FollowerDep, tagged_router
from app.routes.predict import ModelQuery, VersionQuery, asked_for, content_type
from app.schemas.answers import BatchAnswer
from app.schemas.rows import row_model
from app.serving.batch_answers import BatchSample, write_csv, write_json
from app.serving.loaded_model import STALE, LoadedModel, Overloaded
from app.serving.memory import release_memory
from app.serving.pace import Pace
from app.serving.places import Places
from app.serving.prediction_log import LogEntry, ids_of
from app.serving.work_queue import Pauses, WorkQueue
from dosel.errors import DoselError
from dosel.rows.csv import CsvReader
from dosel.rows.encodings import marked_in_utf_8
from dosel.rows.json import JsonReader
from dosel.rows.shortened import cut
from dosel.rows.validation import InvalidRows, UnreadableRows
from dosel.settings import Settings
from dosel.usecases import UseCase

AT_ONCE = max(1, min(2, (os.cpu_count() or 1) // 2))
"""Bulk requests that are processed at once: on two cores, one is left for single rows."""

SPARE = max(0, min(4, os.cpu_count() or 1) - AT_ONCE)
"""Further bulk requests that are processed at once while no single rows are answered."""

WAITING = 16
"""Bulk requests that may wait for processing; further requests get a 503."""

UPLOADS = 32
"""Bulk requests whose body is on disk or being received; further requests get a 503."""

BYTES_PER_SECOND = 64e6
"""Most bytes of bulk requests that are received in a second: a few times as many as are processed."""

MOST_CHANGE_BYTES = 16_384
"""Most bytes of the body of a promotion and the like."""

IN_MEMORY_BYTES = 256_000
"""Larger bodies and answers are on disk. An answer stays there until it is sent, in pieces: a client may take long to
read it."""

PIECE_BYTES = 1 << 17
"""Bytes of an answer on disk that are read at once."""

LARGE_BYTES = 4_000_000
"""After a larger body, free memory is returned to the operating system."""

LOG_SHARE = 0.2
"""Rows of bulk requests are logged while less than this part of the prediction log's queue is full: one client can send
more of them than are written."""

UNREAD = 10
"""Disk for unread answers, in multiples of `DOSEL_MAX_BATCH_BYTES`; further requests get a 503."""

JSON, CSV = "application/json", "text/csv"

LogQuery = Annotated[
    bool,
    Query(description="False keeps the rows out of the prediction log: nobody observed them, as in a what-if."),
]


def limits(settings: Settings, use_cases: Sequence[UseCase]) -> Callable[[Scope], tuple[int, bool]]:
    """A function of a request's scope: the most bytes of its body, and whether they are written to disk."""
    paths = {_path(use_case) for use_case in use_cases}

    def limit(scope: Scope) -> tuple[int, bool]:
        if scope["path"] not in paths:
            most = settings.max_body_bytes
            return (min(MOST_CHANGE_BYTES, most) if changes_production(scope) else most), False
        declared = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        is_csv = content_type(declared) == CSV
        return (settings.max_batch_bytes if is_csv else settings.max_json_batch_bytes), True

    return limit


def router(use_cases: Sequence[UseCase], settings: Settings, pauses: Pauses) -> APIRouter:
    """
    Args:
        pauses: knows whether single rows are answered.
    """
    made = tagged_router(
        "predict", documented(400, 401, 403, 404, 408, 413, 415, 429, 503) | documented(422, model=BatchProblem)
    )
    queue = WorkQueue("bulk requests", AT_ONCE, WAITING, spare=SPARE, rows=pauses)
    uploads = Places("the upload queue", UPLOADS)
    unread = Places("the disk for answers that clients have not read", UNREAD * settings.max_batch_bytes)
    pace = Pace(BYTES_PER_SECOND)
    for use_case in use_cases:
        _add(made, use_case, queue, uploads, unread, pace, settings.logged_batch_rows)

    @made.post("/predict/{use_case}/batch", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(cut(use_case))

    return made


def _path(use_case: UseCase) -> str:
    return f"/predict/{use_case.name}/batch"


def _add(
    router: APIRouter,
    use_case: UseCase,
    queue: WorkQueue,
    uploads: Places,
    unread: Places,
    pace: Pace,
    logged_rows: int,
) -> None:
    Row = row_model(use_case)
    json_reader, csv_reader = JsonReader(use_case), CsvReader(use_case)
    header = ",".join(use_case.feature_names)
    example = ",".join(map(str, use_case.example.values()))
    body = {
        JSON: {"schema": {"type": "array", "items": {"$ref": f"#/components/schemas/{Row.__name__}"}}},
        CSV: {"schema": {"type": "string"}, "example": f"{header}\n{example}\n"},
    }

    @router.post(
        _path(use_case),
        summary=f"{use_case.title}, many rows at once",
        operation_id=f"predict_{use_case.name}_batch",
        response_model=BatchAnswer,
        responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def predict_batch(
        request: Request,
        follower: FollowerDep,
        model: ModelQuery = None,
        version: VersionQuery = None,
        log: LogQuery = True,
    ) -> Response:
        """A JSON list of rows, or CSV with a header; answered in the same format and order.

        If any row is invalid, nothing is predicted and the first 100 invalid rows are returned.
        """
        declared = request.headers.get("content-type", "")
        kind = content_type(declared) if declared else JSON
        if kind not in (JSON, CSV):
            raise HTTPException(415, f"the Content-Type is {cut(declared)}; send {JSON} or {CSV}")
        served, stale = await asked_for(request.scope, follower, use_case, model, version=version)
        began, out = time.time(), SpooledTemporaryFile[bytes](IN_MEMORY_BYTES)
        sample = BatchSample(logged_rows if log else 0)
        client = client_of(request.scope)
        # Refuse before the upload if the queue is full. The request takes its place once the body has arrived.
        queue.check(client)
        uploads.take(client)
        try:
            with SpooledTemporaryFile[bytes](IN_MEMORY_BYTES, prefix="dosel-batch-") as body:
                await _receive(request, body, pace)
                size = body.tell()

                def work() -> None:
                    try:
                        if kind == JSON:
                            write_json(json_reader.rows(body), served, out, sample)
                        else:
                            with _in_utf_8(body) as text:
                                write_csv(csv_reader.blocks(text), served, out, sample)
                    except DoselError as error:
                        # Its traceback holds the body and all that was read of it.
                        raise error.with_traceback(None) from None
                    finally:
                        if size > LARGE_BYTES:
                            release_memory()

                await queue.run(client, work)
        except InvalidRows as bad:
            return invalid_rows(request, bad)
        finally:
            uploads.leave(client)
        request.app.state.metrics.rows(sample.rows)
        _log(request, use_case, served, served is follower.loaded(use_case), began, sample)
        response = _sent(out, f"{kind}; charset=utf-8" if kind == CSV else kind, served, unread, client)
        if stale:
            response.headers[STALE] = "true"
        return response


@contextmanager
def _in_utf_8(body: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        with marked_in_utf_8(body) as text:
            yield text
    except UnicodeDecodeError as error:
        raise UnreadableRows(f"not CSV in UTF-16: {error.reason}") from None


def _log(
    request: Request, use_case: UseCase, served: LoadedModel, is_champion: bool, began: float, sample: BatchSample
) -> None:
    """Log the sampled rows, and let the versions in shadow answer them, too, if the champion did."""
    state, ids, version = request.app.state, ids_of(request.scope), served.version
    slot = state.shadowing.slot(use_case)
    for row_no, numbers, codes, answer in sample.sampled:
        entry = LogEntry(
            *ids, began, use_case.name, version.name, version.version, numbers, codes, answer, row_no, sample.rows
        )
        state.record.offer(entry, LOG_SHARE)
        if is_champion:
            state.shadowing.offer(slot, entry)


async def _receive(request: Request, body: IO[bytes], pace: Pace) -> None:
    """Write the request's body to a file."""
    async for chunk in request.stream():
        body.write(chunk)
        await pace.take(len(chunk))


def _sent(
    out: "SpooledTemporaryFile[bytes]", media_type: str, served: LoadedModel, unread: Places, client: str
) -> Response:
    version = served.version
    headers = {"X-Model": version.name, "X-Model-Version": str(version.version)}
    size = out.tell()
    out.seek(0)
    if size <= IN_MEMORY_BYTES:
        with out:
            return Response(out.read(), media_type=media_type, headers=headers)
    try:
        unread.take(client, size)
    except Overloaded:
        out.close()
        raise
    return _FromDisk(out, partial(unread.leave, client, size), media_type, headers | {"Content-Length": str(size)})


async def _pieces(out: IO[bytes]) -> AsyncIterator[bytes]:
    # Just written, so the system has them in memory: a thread for each would take longer, and may not start.
    while piece := out.read(PIECE_BYTES):
        yield piece


class _FromDisk(StreamingResponse):
    """Sends a file and then deletes it, also if the client disconnects."""

    def __init__(self, out: IO[bytes], done: Callable[[], None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(_pieces(out), media_type=media_type, headers=headers)
        self._out = out
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._out.close()
            self._done()
