"""Our API with one of its layers left out, to see what that layer costs."""

import os

from fastapi import FastAPI

from app import main
from app.layers import Layer


def create_app() -> FastAPI:
    """The app without the layer that `DOSEL_BENCHMARK_WITHOUT` names."""
    left_out = os.environ["DOSEL_BENCHMARK_WITHOUT"]
    whole = main.stack

    def stack(*given: object) -> list[tuple[str, Layer]]:
        layers: list[tuple[str, Layer]] = whole(*given)  # type: ignore[arg-type]
        assert left_out in [name for name, _ in layers]
        return [(name, layer) for name, layer in layers if name != left_out]

    main.stack = stack  # type: ignore[assignment]
    return main.create_app()
