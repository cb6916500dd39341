"""Who sends a request: the holder of a key, or an address."""

import hmac
import time
from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

KEY_HOLDER = "dosel.key_holder"
"""Key of a scope with the name of the key that came with the request."""

PROMOTER = "dosel.promoter"
"""Key of a scope with the name of the promoter who sends a request that changes Production."""


def client_of(scope: Scope) -> str:
    """The client of a request: the holder of its key, or else its address."""
    holder = scope.get(KEY_HOLDER)
    return f"key {holder}" if holder else network_of(str((scope.get("client") or ("nobody",))[0]))


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 network of an IPv6 address, which one customer gets."""
    if ":" not in address or not _is_address(address):
        return address
    found = IPv6Address(address)
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))


def holder_of(names: Mapping[str, str], sent: bytes) -> str | None:
    """The name of the holder of a key as it was sent; None for another key.

    A client may send a key beyond ASCII as UTF-8 or as Latin-1, so both count.
    """
    found = None
    for key, name in names.items():
        # All keys are compared in full, so that the time says nothing of them.
        if any(hmac.compare_digest(form, sent) for form in _sent_forms(key)):
            found = name
    return found


@cache
def _sent_forms(key: str) -> tuple[bytes, ...]:
    try:
        return key.encode(), key.encode("latin-1")
    except UnicodeEncodeError:
        return (key.encode(),)


class TokenBuckets:
    """A token bucket for each client: it holds `full` requests, so that short bursts pass, and refills steadily."""

    MOST = 10_000
    """Most buckets; beyond that the one that was used longest ago is dropped."""

    def __init__(self, per_second: float, full: float) -> None:
        self._per_second = per_second
        self._full = full
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> float:
        """Take a token from the client's bucket; return the seconds to wait for one, 0 if there was one."""
        now = time.monotonic()
        # A bucket moves to the end when it is used, so that the first bucket was used longest ago.
        left, at = self._buckets.pop(client, (self._full, now))
        left = min(self._full, left + (now - at) * self._per_second)
        taken = left >= 1
        self._buckets[client] = (left - taken, now)
        if len(self._buckets) > self.MOST:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if taken else (1 - left) / self._per_second


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
            # Each proxy appends the address that it was called from; only a trusted proxy's entry is used.
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
