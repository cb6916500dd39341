"""The HTTP routes of the data API, with exactly the course's contract.

    uvicorn --factory external.main:create_app        (or `uvicorn external.main:app`)

This module has only HTTP: `state` knows which batch a group has reached, and `sampling` draws its rows.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline

from external.columns import as_words
from external.data import DataSet, load
from external.sampling import draw
from external.settings import FIRST_CLASS, Settings, StartError, read_settings
from external.state import GROUPS, Exhausted, Position, State

PROJECT = "Extracción de datos, entrenamiento de modelos."
NO_SUCH_GROUP = "Número de grupo inválido"
# "minima" without its accent: clients compare the sentence as it is.
EXHAUSTED = "Ya se recolectó toda la información minima necesaria"

logger = logging.getLogger("uvicorn.error")


def create_app() -> FastAPI:
    """The app for this environment; an invalid setting ends the process with one line."""
    try:
        settings = read_settings()
        # The state first: the process that has locked its folder is the only one that downloads into it.
        state = State(settings.data_api_state_dir, settings.min_update_time)
        return build_app(settings, state, load(settings))
    except StartError as error:
        raise SystemExit(f"data API: {error}") from None


def __getattr__(name: str) -> Any:
    """`external.main:app`, made when a server asks for it: importing this module does nothing yet."""
    if name == "app":
        # Cached: a server may ask twice, and a second app would find the state folder locked by the first.
        return globals().setdefault(name, create_app())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_app(settings: Settings, state: State, data: DataSet) -> FastAPI:
    """The app for a state and rows; it releases the state when it shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        logger.info("data API: serving %d rows (%s)", len(data.rows), data.source)
        yield
        state.close()

    # Its documentation needs no internet.
    app = FastAPIOffline(title="Data API", redoc_url=None, lifespan=lifespan)
    first_class = FIRST_CLASS[settings.data_api_classes]
    drift = settings.drift

    def answer(turn: Position) -> Response:
        tenth = (turn.batch if settings.slice_by == "batch" else turn.group) - 1
        seed = (settings.data_api_seed, turn.group, turn.restarts, turn.batch, turn.draw)
        rows = draw(data.rows, tenth, settings.batch_fraction, seed)
        bad = drift if drift is not None and turn.batch >= drift.batch else None
        words = as_words(bad.resample(rows, seed) if bad else rows, first_class)
        sent = bad.change(words, first_class, seed) if bad else words
        content = {"group_number": turn.group, "batch_number": turn.batch, "data": sent}
        return JSONResponse(content, headers={"X-Epoch": turn.epoch})

    @app.get("/")
    def root() -> dict[str, str]:
        return {"Proyecto 2": PROJECT}

    @app.get("/data")
    def next_batch(group_number: int) -> Response:
        try:
            return state.take(_existing(group_number), answer)
        except Exhausted as error:
            raise HTTPException(400, EXHAUSTED, headers={"X-Epoch": error.epoch}) from None

    @app.get("/restart_data_generation")
    def restart_data_generation(group_number: int) -> Response:
        epoch = state.restart(_existing(group_number))
        return JSONResponse(["ok"], headers={"X-Epoch": epoch})

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "source": data.source,
            "rows": len(data.rows),
            "note": data.note,
            "classes": settings.data_api_classes,
            "slice_by": settings.slice_by,
            "batch_fraction": settings.batch_fraction,
            "min_update_time": settings.min_update_time,
            "seed": settings.data_api_seed,
            "drift": drift.describe() if drift else None,
        }

    return app


def _existing(group: int) -> int:
    if group not in GROUPS:
        raise HTTPException(400, NO_SUCH_GROUP)
    return group
