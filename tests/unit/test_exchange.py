"""Exchanges with servers that are not trusted, from programs with and without an event loop."""

import asyncio

from dosel.exchange import finished


async def _answered() -> str:
    await asyncio.sleep(0)
    return "answer"


def test_an_exchange_ends_where_no_event_loop_runs() -> None:
    assert finished(_answered()) == "answer"


def test_an_exchange_ends_beside_a_running_event_loop() -> None:
    """As in a cell of a notebook, which calls dosel from a running loop."""

    async def cell() -> str:
        return finished(_answered())

    assert asyncio.run(cell()) == "answer"
