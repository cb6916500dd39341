"""A FastAPI service that checks the same body as the API and returns a constant: the lower bound for FastAPI."""

from typing import Any

from fastapi import FastAPI

from app.schemas.rows import request_model
from dosel.usecases.covertype import COVERTYPE

ANSWER = {
    "prediction": 2,
    "label": "Lodgepole Pine",
    "probabilities": dict.fromkeys(COVERTYPE.target.labels.values(), 0.1428571),
    "model": {"name": COVERTYPE.model_name, "version": 1, "run_id": "0" * 32},
}


def create_app() -> FastAPI:
    app = FastAPI()
    Body: Any = request_model(COVERTYPE)

    @app.post("/predict")
    async def predict(row: Body) -> dict[str, Any]:
        return ANSWER

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    return app
