"""Dependencies of the endpoints."""

import hmac
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader

from app.serving.follower import ModelFollower


async def _follower(request: Request) -> ModelFollower:
    follower: ModelFollower = request.app.state.follower
    return follower


FollowerDep = Annotated[ModelFollower, Depends(_follower)]

_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of `DOSEL_PROMOTE_KEYS`.")


async def _key_holder(request: Request, key: Annotated[str | None, Security(_KEY)]) -> str:
    """The holder of the request's key, for promotions and rollbacks."""
    holders: dict[str, str] = request.app.state.promote_key_names
    if not holders:
        raise HTTPException(403, "promotions over HTTP are disabled: DOSEL_PROMOTE_KEYS is empty")
    found = [name for known, name in holders.items() if hmac.compare_digest(known.encode(), (key or "").encode())]
    if not found:
        raise HTTPException(401, "a promotion requires a key in the header X-API-Key", {"WWW-Authenticate": "Key"})
    return found[0]


KeyHolder = Annotated[str, Depends(_key_holder)]
