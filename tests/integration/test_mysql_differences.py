"""The differences of MySQL 8.4 from MariaDB that matter, tested on MariaDB.

Its default collation ignores case, as that of the tests' MariaDB, and its accounts log in with
caching_sha2_password. By default, it refuses LOAD DATA LOCAL, which Compose enables: see test_loading.
"""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, inspect, select, text

from dosel.db.engine import connect, transaction
from dosel.db.migrations import VERSION_TABLE
from dosel.db.tables import METADATA, PROMOTIONS
from dosel.errors import WarehouseError
from dosel.quality import check
from dosel.registry.ledger import PromotionLedger
from dosel.sources import Batch
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore

Received = Callable[..., list[list[str]]]


@pytest.fixture
def case_insensitive(schema: str) -> Iterator[Engine]:
    """A warehouse in a schema whose default collation treats 'A' and 'a' as equal."""
    engine = connect(schema)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE plain (name VARCHAR(64) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO plain VALUES ('A')"))
        assert connection.scalar(text("SELECT COUNT(*) FROM plain WHERE name = 'a'")) == 1
    yield engine
    engine.dispose()


def test_every_text_column_of_dosel_compares_byte_for_byte(case_insensitive: Engine) -> None:
    BatchStore(case_insensitive, COVERTYPE)
    PromotionLedger(case_insensitive).append("m", 1, "me", "why")
    collations = "SELECT table_name, collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    with transaction(case_insensitive) as connection:
        found = [tuple(row) for row in connection.execute(text(collations)) if row[1] is not None and row[0] != "plain"]
    # Alembic's own table has the schema's collation, and its text is never compared.
    assert {collation for name, collation in found if name != VERSION_TABLE} == {"utf8mb4_bin"}
    made = set(inspect(case_insensitive).get_table_names()) - {"plain", VERSION_TABLE}
    assert made == {*METADATA.tables, *(f"{COVERTYPE.name}_{suffix}" for suffix in ("raw", "clean", "quarantine"))}
    assert {"batches", "promotions", "covertype_raw", "covertype_clean"} <= {name for name, _ in found}


def test_names_that_differ_only_in_case_are_different(case_insensitive: Engine, received: Received) -> None:
    store = BatchStore(case_insensitive, COVERTYPE)
    for place, (stream, epoch) in enumerate([("a", "e"), ("A", "e"), ("a", "E")]):
        sent = received(3, seed=place)
        checked = check(COVERTYPE, sent, "uci")
        assert store.store(Batch("x", stream, epoch, 1, sent), checked.accepted, checked.refused), (stream, epoch)
    assert [(record.stream, record.epoch) for record in store.records()] == [("a", "e"), ("A", "e"), ("a", "E")]

    ledger = PromotionLedger(case_insensitive)
    for model in ("m", "M"):
        ledger.append(model, 1, "me", "why")
    with transaction(case_insensitive) as connection:
        assert connection.scalars(select(PROMOTIONS.c.model).where(PROMOTIONS.c.model == "M")).all() == ["M"]


def test_other_connections_cannot_send_files(case_insensitive: Engine) -> None:
    with transaction(case_insensitive) as connection:
        assert connection.scalar(text("SELECT @@local_infile")) == 1
    with pytest.raises(WarehouseError, match="local infile"), transaction(case_insensitive) as connection:
        connection.execute(text("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE plain"))


def test_the_password_exchange_of_mysql_8_works() -> None:
    """For caching_sha2_password, PyMySQL needs a package that it does not require itself."""
    from pymysql import _auth

    assert _auth._have_cryptography
