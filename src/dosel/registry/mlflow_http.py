"""An MLflow server's answers, and how dosel asks for them: limits, repetitions and errors of a call over HTTP."""

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dosel.exchange import answer, encoding, finished
from dosel.registry.mlflow_calls import Refused, Run, TooLarge, Unreachable, Version

API = "api/2.0/mlflow"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"

TIMEOUT_SECONDS, RETRIES = 30.0, 3
"""Limits of a call with its whole answer, where the variables of MLflow's own client do not set others."""

MAX_WAIT_SECONDS = 4.0

LEAST_BYTES_A_SECOND = 200_000
"""Slowest accepted transfer of a file: the time limit of a call grows with the file's bytes at this rate."""

PER_PAGE = 25
"""Runs, versions or experiments in a page of an answer."""

MOST_BYTES, MOST_OBJECTS = 8_000_000, 20_000
"""Limits of an answer that is no file: the bytes of ten pages of dosel's runs, and the JSON objects of two such pages.

The API reads answers while it serves: 8 MB of small objects would hold its other requests up for half a second.
"""

MOST_PAGES, MOST_BYTES_OF_PAGES = 1_000, 60_000_000
"""Limits of an answer in pages."""

MOST_FILE_BYTES = 2_000_000_000
"""Largest file of a version: somebody may put a larger one in its place."""

MOST_TEXT = 1_000
"""Characters that an error shows of an answer."""

TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which a call is repeated."""

T = TypeVar("T")


class _Temporary(Exception):
    """The server did not answer, or answered with a temporary error."""


class _Named(msgspec.Struct):
    key: str
    value: str = ""


class _Metric(msgspec.Struct):
    key: str
    value: float = 0.0


class _Info(msgspec.Struct):
    run_id: str
    artifact_uri: str = ""
    experiment_id: str = ""


class _Data(msgspec.Struct):
    metrics: list[_Metric] = []
    params: list[_Named] = []
    tags: list[_Named] = []


class _Model(msgspec.Struct):
    model_id: str


class _Outputs(msgspec.Struct):
    model_outputs: list[_Model] = []


class WireRun(msgspec.Struct):
    info: _Info
    # None and not empty objects by default: an answer may have thousands of runs without them.
    data: _Data | None = None
    outputs: _Outputs | None = None

    def read(self) -> Run:
        """The run of the server's JSON."""
        data = self.data or _Data()
        models = tuple(model.model_id for model in self.outputs.model_outputs) if self.outputs else ()
        params, tags = ({entry.key: entry.value for entry in entries} for entries in (data.params, data.tags))
        metrics = {metric.key: metric.value for metric in data.metrics}
        return Run(self.info.run_id, metrics, params, tags, models, self.info.experiment_id)


class _Alias(msgspec.Struct):
    alias: str
    version: int


class _RegisteredModel(msgspec.Struct):
    aliases: list[_Alias] = []


class _Experiment(msgspec.Struct):
    experiment_id: str


class _File(msgspec.Struct):
    path: str
    is_dir: bool = False
    file_size: int | None = None


class Answer(msgspec.Struct):
    """The parts of MLflow's answers that dosel reads; each call gives some of them."""

    run: WireRun | None = None
    runs: list[WireRun] = []
    experiment: _Experiment | None = None
    experiments: list[_Experiment] = []
    model_version: Version | None = None
    model_versions: list[Version] = []
    registered_model: _RegisteredModel = msgspec.field(default_factory=_RegisteredModel)
    artifact_uri: str = ""
    experiment_id: str = ""
    files: list[_File] = []
    next_page_token: str = ""


class _Error(msgspec.Struct):
    error_code: str = ""
    message: str = ""


class MlflowHttp:
    """Calls to MLflow's server at `uri`. Threads may share it.

    Each call may raise `Unreachable` and `Refused`.

    Args:
        transport: carries the requests; tests replace it.
    """

    def __init__(self, uri: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._uri = uri.rstrip("/")
        self._attempts = 1 + int(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") or RETRIES)
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
        insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        self._seconds = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"} if token and not user else None
        self._auth = (user, password or "") if user else None
        certificates = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        self._verify = not insecure and (_tls(certificates) if certificates else True)
        self._transport = transport

    def fetch(self, path: str, file: Path) -> None:
        """Copy the artifact at a path of the server to a file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._repeat(lambda: self._copy(path, file))

    async def _copy(self, path: str, file: Path) -> None:
        until = asyncio.get_running_loop().time() + self._seconds
        async with (
            asyncio.timeout_at(until) as deadline,
            self._answer("GET", f"{ARTIFACTS}/{quote(path)}", None) as response,
        ):
            if not response.is_success:
                _check(response, await _content(response))
            _check_encoding(response)
            with file.open("wb") as out:
                async for part in response.aiter_raw():
                    if out.tell() > MOST_FILE_BYTES:
                        raise Refused(f"the file {path} has more than {MOST_FILE_BYTES:,} bytes")
                    out.write(part)
                    deadline.reschedule(until + out.tell() / LEAST_BYTES_A_SECOND)

    def pages(self, method: str, path: str, asked: Mapping[str, Any], first: int | None = None) -> list[Answer]:
        """The answers to a call that answers page by page, of `PER_PAGE` entries each.

        Args:
            first: ask for this many pages only.
        """
        pages, token, size = list[Answer](), "", 0
        asked = {**asked, "max_results": PER_PAGE}
        while (token or not pages) and len(pages) != first:
            content = self._called(method, path, {**asked, "page_token": token} if token else asked)
            size += len(content)
            if len(pages) == MOST_PAGES or size > MOST_BYTES_OF_PAGES:
                raise TooLarge(f"it gives more than {MOST_PAGES} pages or {MOST_BYTES_OF_PAGES:,} bytes")
            page = self.read(content)
            if max(len(page.runs), len(page.experiments), len(page.model_versions)) > PER_PAGE:
                raise Refused(f"it gives more than the {PER_PAGE} entries of a page that were asked for")
            pages.append(page)
            token = pages[-1].next_page_token
        return pages

    def call(self, method: str, path: str, asked: Mapping[str, Any], attempts: int | None = None) -> Answer:
        """The answer to a call of the REST API.

        Args:
            attempts: by default as many as the environment says; 1 for a call that is not safe to repeat.
        """
        return self.read(self._called(method, path, asked, attempts))

    def _called(self, method: str, path: str, asked: Mapping[str, Any], attempts: int | None = None) -> bytes:
        body = {"params": asked} if method == "GET" else {"json": asked}
        return self.send(method, f"{API}/{path}", attempts, **body)

    def send(self, method: str, path: str, attempts: int | None = None, **request: Any) -> bytes:
        """The content of the answer to any request; `attempts` as in `call`."""

        async def send() -> bytes:
            seconds = self._seconds + len(request.get("content", b"")) / LEAST_BYTES_A_SECOND
            async with self._answer(method, path, seconds, **request) as response:
                content = await _content(response)
            _check(response, content)
            return content

        return self._repeat(send, attempts)

    def _answer(
        self, method: str, path: str, seconds: float | None, **request: Any
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return answer(
            method,
            f"{self._uri}/{path}",
            seconds=seconds,
            headers=self._headers,
            auth=self._auth,
            verify=self._verify,
            transport=self._transport,
            **request,
        )

    def _repeat(self, call: Callable[[], Coroutine[Any, Any, T]], attempts: int | None = None) -> T:
        """Call the server, and retry if it does not answer, or answers with a temporary error."""
        retrying = Retrying(
            retry=retry_if_exception_type(_Temporary),
            stop=stop_after_attempt(attempts or self._attempts),
            wait=wait_random_exponential(multiplier=0.3, max=MAX_WAIT_SECONDS),
            reraise=True,
        )
        try:
            return retrying(_named_errors(call))
        except _Temporary as error:
            raise Unreachable(str(error)) from error.__cause__

    def read(self, content: bytes) -> Answer:
        """The parts of an answer that dosel reads."""
        if content.count(b"{") > MOST_OBJECTS:
            raise TooLarge(f"its answer has more than {MOST_OBJECTS:,} JSON objects; dosel writes far fewer")
        try:
            # Not strict: MLflow writes some integers as text, and NaN.
            return msgspec.json.decode(content or b"{}", type=Answer, strict=False)
        except msgspec.DecodeError as error:
            raise Refused(f"its answer cannot be read ({error}); is it MLflow?") from error


def _named_errors(call: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[], T]:
    def named() -> T:
        try:
            return finished(call())
        except TimeoutError as error:
            raise _Temporary("it did not finish its answer in time") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise _Temporary(f"{type(error).__name__}: {error}") from error

    return named


def _tls(certificates: str) -> ssl.SSLContext:
    """TLS that trusts the certificates of a file or a folder."""
    if Path(certificates).is_dir():
        return ssl.create_default_context(capath=certificates)
    return ssl.create_default_context(cafile=certificates)


async def _content(response: httpx.Response) -> bytes:
    """The whole content of an answer, within the limit."""
    _check_encoding(response)
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > MOST_BYTES:
            raise TooLarge(
                f"its answer has more than {MOST_BYTES:,} bytes; dosel writes far less, so look for large tags, "
                "parameters or descriptions in MLflow"
            )
    return bytes(content)


def _check_encoding(response: httpx.Response) -> None:
    """Refuse compressed content: a few kB could inflate to gigabytes, and none is asked for."""
    if (encoded := encoding(response)) != "identity":
        raise Refused(f"it answered in the encoding {encoded[:60]!r}; expected none")


def _check(response: httpx.Response, content: bytes) -> None:
    """Raise the error of an unsuccessful response."""
    if response.is_success:
        return
    if response.has_redirect_location:
        # Not followed: an answer from an address that the server chose is none of MLflow's.
        raise Refused(
            f"it redirects to {response.headers['location'][:200]!r}; set the tracking URI to MLflow's own address"
        )
    try:
        error = msgspec.json.decode(content, type=_Error)
        text = f"{error.error_code}: {error.message}"[:MOST_TEXT]
    except msgspec.DecodeError:
        words = content[:300].decode("utf-8", "replace")
        error, text = _Error(), f"{response.status_code} {response.reason_phrase}: {words}"
    if response.status_code in TEMPORARY:
        raise _Temporary(f"it answered with HTTP status {response.status_code}, {text}")
    raise Refused(text, error.error_code)


def part_of(part: T | None) -> T:
    """A part of an answer that the server must have given."""
    if part is None:
        raise Refused("its answer lacks what was asked for; is it MLflow?")
    return part
