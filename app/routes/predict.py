"""One row in, one answer out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request
from starlette.datastructures import QueryParams
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.http.body_limits import FORM
from app.http.clients import client_of
from app.http.parameters import refuse_unknown
from app.http.problems import documented, error_response
from app.routes.dependencies import FollowerDep, tagged_router
from app.schemas.answers import Answer
from app.schemas.rows import request_model, row_model
from app.serving.follower import ModelFollower
from app.serving.loaded_model import STALE, LoadedModel
from app.serving.memory import release_memory
from app.serving.named_versions import NamedVersions
from app.serving.prediction_log import LogEntry, PredictionLog, ids_of
from app.serving.row_groups import RowGroups
from app.serving.shadow_slot import Plan
from app.serving.shadowing import Shadowing
from app.serving.work_queue import Pauses, SharedCalls, WorkQueue
from dosel.model.predictor import Prediction, ScikitLearnDecides
from dosel.rows.json import JsonReader, Row
from dosel.rows.shortened import cut
from dosel.rows.validation import InvalidRows, InvalidValue
from dosel.usecases import UseCase

DEFAULT_PATH = "/predict"

PARAMETERS = ("model", "version")
"""The query parameters of a call for one row."""

WAITING, DECIDE_SECONDS = 255, 10.0
"""Rows that may wait for the validator or for scikit-learn, and how long a request waits for either."""

LARGE_BYTES = 8_192
"""After a larger body that only the validator can read, free memory is returned to the operating system."""

RESPONSES = documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 503)

ModelQuery = Annotated[
    str | None,
    Query(
        description="A family of the use case, for its newest version; or the registered model, for the version in "
        "Production, which is the default. `GET /use-cases` lists the families."
    ),
]

MOST_VERSION = 2**31 - 1

VersionQuery = Annotated[
    int | None,
    Query(
        ge=1,
        le=MOST_VERSION,
        description="The number of a registered version, whether or not it is in Production; it takes precedence over "
        "`model`. The first call loads it.",
    ),
]


@dataclass(frozen=True)
class RowWork:
    """What all routes for one row share.

    Attributes:
        pauses: of other work while rows come.
        groups: for rows of requests that come at the same time.
        judging: for rows that only the validator can read or refuse.
        decisions: for rows that scikit-learn has to decide.
    """

    pauses: Pauses
    groups: RowGroups
    judging: WorkQueue
    decisions: WorkQueue


class PredictRow:
    """Answers one row, as a plain ASGI app: FastAPI's way to an endpoint takes longer than the model.

    Args:
        with_model: whether the body may name the model to ask, beside the row's fields.
    """

    def __init__(
        self,
        use_case: UseCase,
        with_model: bool,
        follower: ModelFollower,
        log: PredictionLog,
        shadowing: Shadowing,
        work: RowWork,
    ) -> None:
        self._use_case = use_case
        self._work = work
        self._with_model = with_model
        self._follower = follower
        self._log = log
        self._shadowing = shadowing
        self._slot = shadowing.slot(use_case)
        self._reader = JsonReader(use_case)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._work.groups.requests += 1
        try:
            answer, stale = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001  it becomes a problem document, and an unexpected one is logged
            response = await error_response(Request(scope), error)
            await response(scope, receive, send)
            return
        finally:
            self._work.groups.requests -= 1
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        if stale:
            headers.append((STALE.lower().encode(), b"true"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[bytes, bool]:
        """The body of the answer, and whether the model may be stale."""
        use_case = self._use_case
        self._work.pauses.row_came()
        check_is_json(scope)
        body = await _body(receive)
        read = self._reader.ordinary_row(body, self._with_model)
        if read is None:
            # Odd bodies take milliseconds, in which other requests are answered.
            judge = partial(_judged, self._reader, body, self._with_model)
            read = await self._work.judging.run(client_of(scope), judge)
        numbers, codes, named = read
        asked = _NOTHING_ASKED
        if scope["query_string"]:
            asked = QueryParams(scope["query_string"])
            refuse_unknown(asked.multi_items(), PARAMETERS)
        loaded, stale = await asked_for(
            scope, self._follower, use_case, named, asked.get("model"), version=number_of(asked.get("version"))
        )
        plan = self._slot.plan
        # A canary does not answer for a version that the request names.
        if loaded is not self._follower.loaded(use_case) or asked.get("version") is not None:
            plan = None
        try:
            if self._work.groups.requests == 1 or (plan and plan.canary_for(loaded, numbers, codes)):
                loaded, prediction, took = _predict(plan, loaded, numbers, codes, wait=False)
            else:
                row = numbers, codes
                prediction, took = await self._work.groups.answer(loaded.predictor, row, measure=plan is not None)
        except ScikitLearnDecides:
            # In a thread, so that other requests are answered meanwhile: a client can choose rows with near ties.
            decide = partial(_predict, plan, loaded, numbers, codes, wait=True)
            loaded, prediction, took = await self._work.decisions.run(client_of(scope), decide)
        answer = msgspec.json.encode(prediction)
        version = loaded.version
        entry = LogEntry(
            *ids_of(scope),
            time.time(),
            use_case.name,
            version.name,
            version.version,
            tuple(numbers),
            tuple(codes),
            answer,
        )
        self._log.offer(entry)
        if plan is not None:
            self._shadowing.offer(self._slot, entry, took)
        # The JSON object without its closing brace, then the member `model`, which is encoded once for each version.
        return b"".join((answer[:-1], loaded.model_suffix)), stale


def _judged(reader: JsonReader, body: bytes, with_model: bool) -> Row:
    """As `JsonReader.judged_row`. After a large body, free memory is returned to the operating system."""
    try:
        return reader.judged_row(body, with_model)
    finally:
        if len(body) > LARGE_BYTES:
            release_memory()


def _predict(
    plan: Plan | None, loaded: LoadedModel, numbers: Sequence[float], codes: Sequence[int], wait: bool
) -> tuple[LoadedModel, Prediction, float | None]:
    """The model that answers, its answer, and the milliseconds of processor time if versions in shadow need them."""
    if plan is None:
        return loaded, loaded.predictor.one(numbers, codes, wait), None
    return plan.answer(loaded, numbers, codes, wait)


def routes(
    use_cases: Sequence[UseCase],
    default: UseCase | None,
    follower: ModelFollower,
    log: PredictionLog,
    shadowing: Shadowing,
    pauses: Pauses,
) -> list[Route]:
    """The routes that answer one row, for `Api`; `router` documents them."""
    paths = [(f"/predict/{use_case.name}", use_case, False) for use_case in use_cases]
    if default is not None:
        paths.append((DEFAULT_PATH, default, True))
    work = RowWork(
        pauses,
        RowGroups(),
        WorkQueue("rows that the validator reads", 1, WAITING, DECIDE_SECONDS),
        WorkQueue("rows that scikit-learn decides", 1, WAITING, DECIDE_SECONDS, pauses),
    )
    return [
        Route(path, PredictRow(use_case, with_model, follower, log, shadowing, work))
        for path, use_case, with_model in paths
    ]


def router(use_cases: Sequence[UseCase], default: UseCase | None) -> APIRouter:
    """The documentation of `routes`, and the answers where there is no such use case or no default."""
    made = tagged_router("predict", RESPONSES)

    def add(use_case: UseCase, path: str, title: str, operation: str, with_model: bool = False) -> None:
        made.add_api_route(
            path,
            _documented(use_case, with_model),
            methods=["POST"],
            summary=title,
            description=_describe(use_case),
            operation_id=operation,
        )

    for use_case in use_cases:
        add(use_case, f"/predict/{use_case.name}", use_case.title, f"predict_{use_case.name}")

    if default is not None:
        add(default, DEFAULT_PATH, f"{default.title}, for older clients", "predict", with_model=True)
    else:
        made.add_api_route(DEFAULT_PATH, _without_default(use_cases), methods=["POST"], include_in_schema=False)

    @made.post("/predict/{use_case}", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(use_case)

    return made


def _without_default(use_cases: Sequence[UseCase]) -> Callable[[], None]:
    paths = ", ".join(f"/predict/{use_case.name}" for use_case in use_cases)

    def refuse() -> None:
        raise HTTPException(
            503,
            "no use case is the default: its declaration was refused, or none is marked as the default "
            f"(`dosel check` says which); these paths answer: {paths or 'none'}",
        )

    return refuse


def _documented(use_case: UseCase, with_model: bool) -> Callable[..., Answer]:
    """A function with the signature that OpenAPI documents."""
    Body: Any = request_model(use_case) if with_model else row_model(use_case)

    def document(row: Body, model: ModelQuery = None, version: VersionQuery = None) -> Answer:
        raise NotImplementedError("PredictRow answers")

    return document


_NOTHING_ASKED = QueryParams()


def number_of(version: str | None) -> int | None:
    """The number of a version in a query.

    Raises:
        InvalidRows: it is no number of a version.
    """
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 12 and 1 <= int(version) <= MOST_VERSION):
        raise InvalidRows([InvalidValue("version", f"a whole number from 1 to {MOST_VERSION}", cut(version))])
    return int(version)


async def asked_for(
    scope: Scope, follower: ModelFollower, use_case: UseCase, *models: str | None, version: int | None = None
) -> tuple[LoadedModel, bool]:
    """The model that a request names, and whether it may be stale. A version comes before a model.

    Raises:
        ModelNotFound: a name is neither the use case's registered model nor one of its families.
        NotReady: nothing of it is loaded.
        TooLate: loading a family or a version takes too long.
    """
    families = []
    for model in filter(None, models):
        if use_case.family(model):
            families.append(model)
        else:
            follower.check_model(use_case, cut(model))
    if version is not None:
        versions: NamedVersions = scope["app"].state.named_versions
        return await versions.get(use_case, version, client_of(scope)), False
    if not families:
        return follower.in_production(use_case), follower.stale(use_case)
    family = families[-1]
    loaded = follower.of_family(use_case, family)
    if loaded is None:
        load = partial(follower.load_family, use_case, family)
        loads: SharedCalls = scope["app"].state.family_loads
        loaded = await loads.run((use_case.name, family), load)
    return loaded, follower.stale(use_case, family)


def check_is_json(scope: Scope) -> None:
    """Check the content type of a request.

    Raises:
        HTTPException: the content type is not JSON.
    """
    declared = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if declared in (b"", b"application/json", FORM[1]):
        return
    header = declared.decode("latin-1")
    if content_type(header) != "application/json":
        raise HTTPException(
            415,
            f"the Content-Type is {cut(header)}; send JSON and the header Content-Type: application/json "
            "(curl: -H 'Content-Type: application/json')",
        )


def content_type(header: str) -> str:
    """The media type of a Content-Type, without its parameters; every kind of JSON is `application/json`."""
    message = Message()
    message["content-type"] = header
    main, sub = message.get_content_maintype(), message.get_content_subtype()
    is_json = main == "application" and (sub == "json" or sub.endswith("+json"))
    return "application/json" if is_json else f"{main}/{sub}"


async def _body(receive: Receive) -> bytes:
    """The whole body of a request; `RequestLimits` bounds its size."""
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _describe(use_case: UseCase) -> str:
    classes = ", ".join(f"{code} {label}" for code, label in use_case.target.labels.items())
    return (
        f"{use_case.summary}\n\n"
        f"The version in Production answers. `prediction` is the {use_case.target.title.lower()}: {classes}."
    )
