"""Services that read the same body as the API and return a constant: lower bounds for any service of this kind."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from fastapi import FastAPI

from app.schemas.rows import request_model
from dosel.usecases.covertype import COVERTYPE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ANSWER = {
    "prediction": 2,
    "label": "Lodgepole Pine",
    "probabilities": dict.fromkeys(COVERTYPE.target.labels.values(), 0.1428571),
    "model": {"name": COVERTYPE.model_name, "version": 1, "run_id": "0" * 32},
}


def create_app() -> FastAPI:
    """FastAPI and pydantic, with the same request model as the API."""
    app = FastAPI()
    Body: Any = request_model(COVERTYPE)

    @app.post("/predict")
    async def predict(row: Body) -> dict[str, Any]:
        return ANSWER

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    return app


def create_bare() -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An ASGI app without a framework: msgspec reads the body's fields and their types, and writes the answer."""
    numbers = {number.name for number in COVERTYPE.numbers}
    fields = [(name, float if name in numbers else str) for name in COVERTYPE.feature_names]
    decode = msgspec.json.Decoder(msgspec.defstruct("Row", fields)).decode
    encode = msgspec.json.Encoder().encode

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        if body:
            decode(body)
        answer = encode(ANSWER)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app
