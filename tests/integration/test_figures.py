"""The values for `/metrics` in each kind of data store: totals of batches and pending messages."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from dosel.monitor.delivery import deliver
from dosel.monitor.figures import read_figures
from dosel.monitor.targets import target_names
from dosel.usecases import UseCase, named
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.totals import BatchTotals
from tests.integration.test_delivery import make_older, settings_of, write
from tests.integration.webhook import webhook
from tests.integration.worlds import batch

pytestmark = pytest.mark.storage

BAD = ["many"] * 13


def test_metrics_count_batches_and_rows_and_show_the_newest_refused_share(
    engine: Engine, store: Callable[..., Any], received: Callable[..., list[list[str]]]
) -> None:
    def totals(*use_cases: UseCase) -> Any:
        return read_figures(engine, use_cases or (COVERTYPE,), settings_of(engine)).batches

    BatchStore(engine, COVERTYPE)
    assert totals() == {}
    rows = received(4)
    store([*rows, BAD], 1)
    store([*rows[:2], *received(2, seed=1)], 2)
    assert totals() == {"covertype": BatchTotals(2, 0, 6, 1, 2, 0.0)}
    refused = batch([*rows[:1], BAD, BAD, BAD], 3)
    BatchStore(engine, COVERTYPE).refuse(refused, dict.fromkeys((1, 2, 3), "no number"), "too many")
    assert totals() == {"covertype": BatchTotals(2, 1, 6, 1, 2, 0.75)}
    # Pending messages of a use case that is not served are not shown.
    assert totals(named("penguins")) == {}


def test_pending_messages_are_counted_until_they_are_delivered(engine: Engine) -> None:
    with webhook() as receiver:
        settings = settings_of(engine, notify_webhook=receiver.url)
        [name] = target_names(settings)

        def waiting() -> list[tuple[bool, int, int]]:
            found = read_figures(engine, (), settings).waiting
            assert {one.target for one in found} == {name}
            return [(one.urgent, one.events, round(one.age / 60)) for one in found]

        write(engine, "long ago", "new")
        write(engine, "harm", kind="harmed")
        make_older(engine, "long ago", timedelta(hours=2))
        make_older(engine, "harm", timedelta(minutes=30))
        # A new receiver gets the events of the last hour.
        assert waiting() == [(True, 1, 30), (False, 1, 0)]
        receiver.status = 500
        deliver(engine, settings)
        assert waiting() == [(True, 1, 30), (False, 1, 0)]
        receiver.status = 200
        write(engine, "later")
        deliver(engine, settings)
        assert [(urgent, events) for urgent, events, _ in waiting()] == [(True, 1), (False, 0)]
