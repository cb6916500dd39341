"""What an endpoint asks for by type."""

from typing import Annotated

from fastapi import Depends, Request

from app.serving import Serving


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


ServingDep = Annotated[Serving, Depends(_serving)]
