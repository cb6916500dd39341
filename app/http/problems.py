"""Errors as problem documents (RFC 9457), and the HTTP status of each of the domain's exceptions."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.http.validation_errors import LISTED, FieldError, RowError, of_parameters
from dosel.errors import (
    DoselError,
    ModelNotFound,
    NotExplainable,
    PromotionRefused,
    RegistryError,
    SettingsError,
    TruthConflict,
    UnknownAnswers,
    UnknownUseCase,
    UntrustedModel,
    WarehouseError,
)
from dosel.rows.shortened import cut
from dosel.rows.validation import MESSAGES, InvalidRows, InvalidValue, UnreadableRows

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger("uvicorn.error")

STATUS: tuple[tuple[type[DoselError], HTTPStatus], ...] = (
    (UnknownUseCase, HTTPStatus.NOT_FOUND),
    (ModelNotFound, HTTPStatus.NOT_FOUND),
    (UntrustedModel, HTTPStatus.CONFLICT),
    (PromotionRefused, HTTPStatus.CONFLICT),
    (NotExplainable, HTTPStatus.CONFLICT),
    (UnknownAnswers, HTTPStatus.NOT_FOUND),
    (TruthConflict, HTTPStatus.CONFLICT),
    (RegistryError, HTTPStatus.SERVICE_UNAVAILABLE),
    (SettingsError, HTTPStatus.SERVICE_UNAVAILABLE),
    (WarehouseError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The HTTP status of each exception of the domain; the first match counts."""

RETRY_AFTER_SECONDS = 5

RETRY_UNKNOWN_SECONDS = 30
"""The prediction log's longest pause before it writes again what the data store did not take."""

CLIENT_CLOSED = 499
"""Status in logs and metrics of a request whose client went away; nobody receives it."""

ALWAYS_ANSWERED = {"/healthz", "/readyz", "/metrics"}
"""Paths about the service itself: no key, no rate limit, no queue."""

SCHEMAS = "#/components/schemas/"

WHEN = {
    400: "The body cannot be read.",
    401: "A key is required in the header X-API-Key.",
    403: "This installation has no keys for this call, or the role of the key does not allow it.",
    404: "There is no such use case, model, version or request id, or nothing was in Production yet; the answer says "
    "which.",
    408: "The body did not arrive in time.",
    409: "The version's files are not those that were registered or signed, the promotion, rollback or end of a shadow "
    "is refused, the version cannot be explained, or an answer has another truth already.",
    413: "The body is too large.",
    415: "The body has a content type that this call does not accept.",
    422: "A field or a query parameter is missing, unknown or invalid; the answer names it, and says what was "
    "expected and what was received.",
    429: "Too many requests per second from this caller; `Retry-After` says how long to wait.",
    503: "No model answers yet, MLflow or the data store cannot be reached, a queue is full, or the call takes too "
    "long; the answer says which.",
}


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "Slope: expected a whole number from 0 to 90 °, got 91",
                    "instance": "/predict",
                    "errors": [
                        {
                            "field": "Slope",
                            "expected": "a whole number from 0 to 90 °",
                            "got": "91",
                            "message": "Slope: expected a whole number from 0 to 90 °, got 91",
                        }
                    ],
                }
            ]
        }
    )

    type: str = Field("about:blank", description="Kind of problem; `about:blank` means that the status says it all.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong with this request, or what the API is waiting for.")
    instance: str = Field(description="The path of the request.")
    errors: list[FieldError] | None = Field(None, description="One entry for each invalid field (422 only).")


class BatchProblem(Problem):
    """A problem document for a bulk request, with the invalid rows."""

    model_config = ConfigDict(json_schema_extra={})

    errors: list[RowError] | None = Field(  # type: ignore[assignment]
        None, description="An entry for each invalid field of the first 100 invalid rows (422 only)."
    )


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        try:
            return msgspec.json.encode(content)
        except UnicodeEncodeError:
            # Half a surrogate pair, which UTF-8 cannot encode, is written as JSON's escape.
            return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")


def documented(*statuses: int, model: type[Problem] = Problem) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses.

    The schema is a reference: for a model, the framework would make a validator for each status of each route, which
    takes half of the time in which the app is built.
    """
    content = {"application/json": {"schema": {"$ref": f"{SCHEMAS}{model.__name__}"}}}
    return {status: {"description": WHEN[status], "content": content} for status in statuses}


def as_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Document errors as problem documents, and remove FastAPI's own error schemas."""
    always = documented(422, 429, 503)
    for path, operation in [(path, o) for path, asked in document["paths"].items() for o in asked.values()]:
        if path not in ALWAYS_ANSWERED:
            # The middleware and `check_parameters` can answer these to every request.
            for status, usual in always.items():
                found = operation["responses"].setdefault(str(status), usual)
                if found["content"]["application/json"]["schema"]["$ref"].endswith("/HTTPValidationError"):
                    operation["responses"][str(status)] = usual
        for status, response in operation["responses"].items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                schema = response["content"]["application/json"]["schema"]
                described = {MEDIA_TYPE: {"schema": schema} | _example(int(status), path)}
                operation["responses"][status] = response | {"content": described}
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    ours = models_json_schema(
        [(Problem, "serialization"), (BatchProblem, "serialization")], ref_template=f"{SCHEMAS}{{model}}"
    )
    schemas |= ours[1]["$defs"]
    return document


def _example(status: int, path: str) -> dict[str, Any]:
    """An example for each status; for 422 the schema has one."""
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return {}
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=WHEN[status], instance=path)
    return {"example": problem.model_dump(exclude_none=True)}


def install(app: FastAPI) -> None:
    """Make the app answer every error with a problem document."""

    @app.exception_handler(DoselError)
    async def domain_error(request: Request, error: DoselError) -> ProblemResponse:
        status = next((s for kind, s in STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
        response = _problem(request, status, str(error))
        if isinstance(error, UnknownAnswers) and error.may_come:
            # The log may be behind: in another worker's queue, or while the data store could not be reached.
            response.headers["Retry-After"] = str(RETRY_UNKNOWN_SECONDS)
        return response

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> ProblemResponse:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            return _problem(request, HTTPStatus.BAD_REQUEST, _json_error_position(found[0], error.body))
        return _invalid(request, of_parameters(found))

    @app.exception_handler(InvalidRows)
    async def invalid_row(request: Request, error: InvalidRows) -> ProblemResponse:
        return _invalid(request, error.errors)

    @app.exception_handler(UnreadableRows)
    async def unreadable_row(request: Request, error: UnreadableRows) -> ProblemResponse:
        return _problem(request, HTTPStatus.BAD_REQUEST, f"the body is {error}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == CLIENT_CLOSED:
            return Response(status_code=CLIENT_CLOSED)
        status = HTTPStatus(error.status_code)
        response = _problem(request, status, _describe(request, status, error))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected_error(request: Request, _: Exception) -> ProblemResponse:
        # The server logs the exception with its traceback; the client has no use for either.
        detail = "an error in the service, not in the request; the service's log has the details"
        return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


async def error_response(request: Request, error: Exception) -> Response:
    """The problem document for an error of a route that FastAPI does not call."""
    handlers = request.app.exception_handlers
    kind = next(kind for kind in type(error).__mro__ if kind in handlers)
    if kind is Exception:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    response: Response = await handlers[kind](request, error)
    return response


def problem(status: int, detail: str, path: str) -> dict[str, Any]:
    """A problem document without errors of fields, as JSON has it."""
    made = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=cut(path))
    return made.model_dump(exclude_none=True)


def problem_response(
    scope: Scope, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """The problem document for a request that middleware refuses."""
    return ProblemResponse(problem(status, detail, scope["path"]), status, headers)


def _problem(
    request: Request, status: HTTPStatus, detail: str, errors: list[FieldError] | None = None
) -> ProblemResponse:
    problem = Problem(
        title=status.phrase, status=status, detail=detail, instance=cut(request.scope["path"]), errors=errors
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return ProblemResponse(problem.model_dump(exclude_none=errors is None), status, headers)


def _invalid(request: Request, errors: Sequence[InvalidValue]) -> ProblemResponse:
    """A problem document that lists the first of the errors."""
    more = len(errors) - LISTED
    detail = "; ".join(error.message for error in errors[:LISTED]) + (f"; and {more} more" if more > 0 else "")
    listed = [FieldError.of(error) for error in errors[:LISTED]]
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, listed)


def invalid_rows(request: Request, bad: InvalidRows) -> ProblemResponse:
    """The problem document for a list of rows, with an entry for each invalid field."""
    more = len(bad.errors) - MESSAGES
    detail = str(bad) + (f"; and {more} more" if more > 0 else "")
    # A thousand of pydantic's objects would hold the event loop up for milliseconds.
    errors = [{name: getattr(error, name) for name in RowError.model_fields} for error in bad.errors]
    return ProblemResponse(problem(422, detail, request.scope["path"]) | {"errors": errors}, 422)


def _json_error_position(error: Any, body: Any) -> str:
    position = error["loc"][-1]
    line, column = body.count("\n", 0, position) + 1, position - body.rfind("\n", 0, position)
    return f"the body is not JSON: {error['ctx']['error']}, at line {line}, column {column}"


def _describe(request: Request, status: HTTPStatus, error: HTTPException) -> str:
    """The detail for an HTTP exception; the framework's own get better texts."""
    match status:
        case HTTPStatus.NOT_FOUND if error.detail == status.phrase:
            return "no such path; GET /docs lists the paths"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "another method")
            return f"{request.method} is not allowed here; use {allowed}"
        case HTTPStatus.BAD_REQUEST:
            # FastAPI raises it for a body that is not UTF-8 or too deeply nested.
            return "the body is not JSON: expected a flat object in UTF-8"
    return str(error.detail)
