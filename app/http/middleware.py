"""The middleware that every request passes, outermost first. Plain ASGI: each costs microseconds."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from math import ceil

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.clients import KEY_HOLDER, PROMOTER, TokenBuckets, client_of, holder_of
from app.http.logs import AccessLog
from app.http.metrics import Metrics
from app.http.problems import ALWAYS_ANSWERED, ProblemResponse, problem_response

PROTECTED = ("/predict", "/explain", "/feedback")
"""Prefixes of the paths that need a key, if there are keys."""

Middleware = Callable[[ASGIApp], ASGIApp]
Headers = list[tuple[bytes, bytes]]

# `$` also matches before a final line break, as in the framework's routing: a path that ends with one needs a key, too.
_CHANGES = re.compile(r"/models/[^/]+/(promote|rollback|shadow/[^/]+)$")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_DATA_HEADERS = [*_SECURITY, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
_PAGE_HEADERS = [
    *_SECURITY,
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; frame-ancestors 'none'",
    ),
]


class RequestRecord:
    """Adds request ids and response headers; records each response in the access log and the metrics.

    The server makes the id, `X-Dosel-Request-ID` of the response. Feedback needs nothing but the id, so it is random,
    after a prefix that all responses of a process share. The client's own `X-Request-ID` is the trace id, which the
    response repeats. A request whose handler ended without a response counts as a 500.
    """

    METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

    def __init__(self, app: ASGIApp, log: AccessLog, metrics: Metrics) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics
        self._process = secrets.token_hex(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["dosel.request_id"] = own = f"{self._process}-{secrets.token_hex(16)}"
        request_id = trace_id = own.encode()
        given = _header(scope, b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            trace_id = given
            scope["dosel.trace_id"] = given.decode()
        headers = _PAGE_HEADERS if scope["path"].startswith("/docs") else _DATA_HEADERS
        status, began = 500, time.perf_counter()

        async def recorded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [*headers, (b"x-request-id", trace_id), (b"x-dosel-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, recorded)
        finally:
            seconds = time.perf_counter() - began
            self._log.write(scope, status, seconds)
            # Paths are not kept, since there may be any number of them.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in self.METHODS else "other"
            self._metrics.answered(route, method, status, seconds)


class Keys:
    """Requires a key for the protected paths, if there are keys, and limits each caller to `per_second` requests.

    Args:
        readers: names by key; these keys open the paths of `closed`.
        scorers: names by key, some of `readers`; these keys open `PROTECTED`, too.
        closed: prefixes of the paths about rows of closed use cases, which also need a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        readers: Mapping[str, str],
        scorers: Mapping[str, str],
        per_second: float,
        closed: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._keys = readers
        self._scorers = scorers
        self._per_second = per_second
        self._buckets = TokenBuckets(per_second, max(1.0, per_second))
        self._closed = PROTECTED + closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED or not (self._keys or self._per_second):
            await self._app(scope, receive, send)
            return
        asks = bool(self._keys) and scope["path"].startswith(self._closed)
        key = _header(scope, b"x-api-key") or b""
        name = scope[KEY_HOLDER] = holder_of(self._keys, key)
        # A caller with a wrong key counts against the bucket of its address.
        wait = self._buckets.take(client_of(scope)) if self._per_second else 0.0
        if wait:
            detail = f"more than {self._per_second:g} requests per second; try again in {ceil(wait)} s"
            response = problem_response(scope, 429, detail, {"Retry-After": str(ceil(wait))})
            await response(scope, receive, send)
            return
        if asks and name is None:
            detail = "a key is required in the header X-API-Key"
            response = problem_response(scope, 401, detail, {"WWW-Authenticate": "Key"})
            await response(scope, receive, send)
            return
        if asks and scope["path"].startswith(PROTECTED) and holder_of(self._scorers, key) is None:
            detail = f"{name} may only read; this call needs a key with the role scorer"
            response = problem_response(scope, 403, detail)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


class PromoteKeys:
    """Requires the key of a promoter for requests that change Production, before their body is read.

    Args:
        promoters: names by key.
    """

    def __init__(self, app: ASGIApp, promoters: Mapping[str, str]) -> None:
        self._app = app
        self._promoters = promoters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if changes_production(scope) and (refused := self._refused(scope)):
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> ProblemResponse | None:
        if not self._promoters:
            detail = "promotions over HTTP are disabled: neither DOSEL_KEYS nor DOSEL_PROMOTE_KEYS has a promoter"
            return problem_response(scope, 403, detail)
        name = scope[PROMOTER] = holder_of(self._promoters, _header(scope, b"x-api-key") or b"")
        if name is not None:
            return None
        if other := scope.get(KEY_HOLDER):
            detail = f"{other} may not change Production; that needs a key with the role promoter"
            return problem_response(scope, 403, detail)
        detail = "a promotion requires a key in the header X-API-Key"
        return problem_response(scope, 401, detail, {"WWW-Authenticate": "Key"})


def changes_production(scope: Scope) -> bool:
    """Whether a request is one that only a promoter may send."""
    # Most requests have another path, and need no regular expression to be seen as such.
    return (
        scope["type"] == "http"
        and scope["path"].startswith("/models/")
        and scope["method"] == "POST"
        and _CHANGES.match(scope["path"]) is not None
    )


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
