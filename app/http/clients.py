"""Who sends a request: the holder of a key, or an address."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

KEY_HOLDER = "dosel.key_holder"
"""Key of a scope with the name of the key that came with the request."""


def client_of(scope: Scope) -> str:
    """The client of a request: the holder of its key, or else its address."""
    holder = scope.get(KEY_HOLDER)
    return f"key {holder}" if holder else str((scope.get("client") or ("nobody",))[0])


class BehindProxies:
    """Takes the client's address from `X-Forwarded-For`, if a trusted proxy sent the request.

    Args:
        networks: addresses of the trusted proxies.
    """

    def __init__(self, app: ASGIApp, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            address, port = scope["client"]
            # Each proxy appends the address that it was called from; only a trusted proxy's entry is believed.
            heard = [
                part.strip()
                for name, value in scope["headers"]
                if name == b"x-forwarded-for"
                for part in value.decode("latin-1").split(",")
            ]
            while heard and self._is_trusted(address):
                address, port = heard.pop(), 0
            if _is_address(address):
                scope["client"] = (address, port)
        await self._app(scope, receive, send)

    def _is_trusted(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
