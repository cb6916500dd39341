"""The API without one of its middleware, to measure that middleware."""

import os

from fastapi import FastAPI

from app import main
from app.http.middleware import Middleware


def create_app() -> FastAPI:
    """The app without the middleware that `DOSEL_BENCHMARK_WITHOUT` names."""
    left_out = os.environ["DOSEL_BENCHMARK_WITHOUT"]
    whole = main.stack

    def stack(*given: object) -> list[tuple[str, Middleware]]:
        middleware: list[tuple[str, Middleware]] = whole(*given)  # type: ignore[arg-type]
        assert left_out in [name for name, _ in middleware]
        return [(name, middleware) for name, middleware in middleware if name != left_out]

    main.stack = stack  # type: ignore[assignment]
    return main.create_app()
