"""Who counts as one client."""

import pytest

from app.http.clients import TokenBuckets, client_of


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::8", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("a:b", "a:b"),
    ],
)
def test_addresses_of_one_ipv6_network_are_one_client(address: str, client: str) -> None:
    assert client_of({"client": (address, 1234)}) == client


def test_an_ipv6_network_has_one_bucket() -> None:
    buckets = TokenBuckets(per_second=0.001, full=3)
    waits = [buckets.take(client_of({"client": (f"2001:db8::{number:x}", 0)})) for number in range(5)]
    assert [wait == 0 for wait in waits] == [True] * 3 + [False] * 2
