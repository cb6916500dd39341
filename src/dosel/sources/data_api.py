"""The client of the outside data API: one GET; the 400 after the last batch has several wordings."""

import json
import math
import random
import unicodedata
import zlib
from collections.abc import Callable
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dosel.errors import SourceError, SourceUnavailable
from dosel.exchange import answer, encoding, finished
from dosel.sources.base import Batch

ATTEMPTS = 4
MAX_WAIT_SECONDS = 30.0
MAX_ANSWER_BYTES = 64_000_000
"""Largest answer: ten times the largest slice of the whole data set."""

SPARE_VALUES = 10
"""Commas that a row may have beyond its columns, as within texts; an answer with more than twice as many is refused."""

MAX_NUMBER, MAX_EPOCH = 2**31 - 1, 64
"""The largest number of a batch, and the longest epoch, that the batch ledger can hold."""


class DataApi:
    """A client of `GET /data?group_number=N`.

    Args:
        url: the API's address, without the path.
        group: 1 to 10; each group is a sequence of its own.
        coding: name of the API's class numbering.
        timeout: seconds for one whole answer, from connecting to the last byte.
        columns: number of columns of a row.
        transport: carries the requests; tests replace it.
    """

    def __init__(
        self,
        url: str,
        group: int,
        coding: str,
        timeout: float,
        columns: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/data"
        self._group = group
        self._coding = coding
        self._columns = columns
        self._timeout = timeout
        self._transport = transport

    def next_batch(self) -> Batch | None:
        retrying = Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait,
            reraise=True,
        )
        return retrying(self._fetch)

    def _fetch(self) -> Batch | None:
        status, headers, body = self._get()
        if status == 429 or status >= 500:
            raise SourceUnavailable(
                f"the data API at {self._url} answered {status}; see its log", _retry_after(headers)
            )
        parsed = self._parse(status, headers, body)
        if status == 400 and _is_end(str(parsed.get("detail", ""))):
            return None
        if status != 200:
            raise SourceError(f"the data API at {self._url} refused group {self._group}: {status} {parsed}")
        return self._batch(parsed, headers.get("x-epoch", ""))

    def _get(self) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body, limited in size and time."""
        try:
            return finished(self._exchange())
        except TimeoutError as error:
            raise SourceUnavailable(
                f"the data API at {self._url} did not finish its answer in {self._timeout:g} s"
            ) from error
        except httpx.RequestError as error:
            raise SourceUnavailable(
                f"the data API at {self._url} cannot be reached ({type(error).__name__}: {error}); is it running?"
            ) from error

    async def _exchange(self) -> tuple[int, httpx.Headers, bytes]:
        asked = {"group_number": self._group}
        async with answer("GET", self._url, seconds=self._timeout, transport=self._transport, params=asked) as response:
            inflate = self._inflater(encoding(response))
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += inflate(chunk)
                if len(body) > MAX_ANSWER_BYTES:
                    raise SourceError(
                        f"the data API at {self._url} sent more than {MAX_ANSWER_BYTES} bytes for one batch"
                    )
            return response.status_code, response.headers, bytes(body)

    def _inflater(self, encoded: str) -> Callable[[bytes], bytes]:
        """A function that decompresses an answer, for a server that compresses although it was asked not to.

        It undoes one encoding only, and stops at the largest answer: a few kB of nested gzip can inflate to gigabytes.
        """
        if encoded == "identity":
            return bytes
        if encoded not in ("gzip", "deflate"):
            raise SourceError(f"the data API at {self._url} answered in the encoding {encoded[:60]!r}; expected none")
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)

        def inflate(chunk: bytes) -> bytes:
            try:
                return inflater.decompress(chunk, MAX_ANSWER_BYTES + 1)
            except zlib.error as error:
                raise SourceUnavailable(f"the data API at {self._url} sent damaged {encoded}: {error}") from error

        return inflate

    def _parse(self, status: int, headers: httpx.Headers, body: bytes) -> dict[str, Any]:
        lists = body.count(b"[") + body.count(b"{")
        if lists > len(body) // (2 * self._columns) + 3:
            # Each value takes a byte and a comma. Millions of empty lists would take a hundred times their bytes.
            raise SourceError(
                f"the data API at {self._url} sent {lists:,} lists and objects in {len(body):,} bytes, too many for "
                f"rows of {self._columns} columns"
            )
        if (commas := body.count(b",")) > 2 * (lists + 1) * (self._columns + SPARE_VALUES):
            # Before they are read: a row of fifteen million values takes 2 GB.
            raise SourceError(
                f"the data API at {self._url} sent {commas:,} commas in {lists:,} lists and objects, too many for rows "
                f"of {self._columns} columns"
            )
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError) as error:
            # Without the body: an answer that was cut off has received rows in it.
            kind = headers.get("content-type", "no content type")
            raise SourceUnavailable(
                f"the data API at {self._url} answered {status} with {len(body):,} bytes ({kind}) that are not JSON"
            ) from error
        if not isinstance(parsed, dict):
            raise SourceError(f"the data API at {self._url} answered {status} with {type(parsed).__name__}")
        return parsed

    def _batch(self, parsed: dict[str, Any], epoch: str) -> Batch | None:
        rows, number, group = (parsed.get(key) for key in ("data", "batch_number", "group_number"))
        if rows == []:
            return None
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise SourceError(f"the data API at {self._url} sent no list of rows in 'data'")
        if type(number) is not int or not 1 <= number <= MAX_NUMBER:
            sent = repr(number)[:40]
            raise SourceError(f"the data API at {self._url} sent batch_number {sent}; expected 1 to {MAX_NUMBER:,}")
        if len(epoch) > MAX_EPOCH or not epoch.isprintable():
            wanted = f"at most {MAX_EPOCH} printable characters"
            raise SourceError(f"the data API at {self._url} sent X-Epoch {epoch[:40]!r}; expected {wanted}")
        if group != self._group:
            raise SourceError(f"the data API at {self._url} sent group {group!r}; expected {self._group}")
        return Batch(self._url, f"group {self._group}", epoch, number, rows, self._coding)


def _is_end(detail: str) -> bool:
    """Whether a 400 means that all batches were sent; the API and its copies spell it in several ways."""
    plain = "".join(c for c in unicodedata.normalize("NFD", detail) if not unicodedata.combining(c)).casefold()
    return "informacion minima" in plain or "ya se recolecto" in plain


def _retry_after(headers: httpx.Headers) -> float | None:
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return None if math.isnan(seconds) else seconds


def _wait(state: RetryCallState) -> float:
    """Seconds to the next attempt: the API's Retry-After, otherwise doubling from half a second, with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, SourceUnavailable) else None
    if asked is not None:
        return min(max(asked, 0.0), MAX_WAIT_SECONDS)
    doubling: float = 0.5 * 2 ** (state.attempt_number - 1)
    return min(doubling, MAX_WAIT_SECONDS) * random.uniform(0.75, 1.25)
