"""What a shared server may demand: its collation, logins, TLS, primary keys, small packets, and to be only read.

Tests that take `mysql` need MySQL; the others also run on MariaDB. `test_services` restarts a server in the middle of a
transaction.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, select, text

from dosel.credentials import new_certificate
from dosel.db.engine import connect, transaction
from dosel.db.migrations import VERSION_TABLE
from dosel.db.tables import METADATA, PROMOTIONS
from dosel.embedded.local_databases import MySQL
from dosel.errors import SettingsError, WarehouseError
from dosel.quality import check
from dosel.registry.ledger import PromotionLedger
from dosel.sources.base import Batch
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore

pytestmark = pytest.mark.usefixtures("real_migrations")

Received = Callable[..., list[list[str]]]


@pytest.fixture
def case_insensitive(schema: str) -> Iterator[Engine]:
    """A data store in a schema whose default collation treats 'A' and 'a' as equal."""
    engine = connect(schema)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE plain (name VARCHAR(64) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO plain VALUES ('A')"))
        assert connection.scalar(text("SELECT COUNT(*) FROM plain WHERE name = 'a'")) == 1
    yield engine
    engine.dispose()


def put(engine: Engine, sent: list[list[str]], number: int = 1) -> None:
    checked = check(COVERTYPE, sent, "uci")
    assert BatchStore(engine, COVERTYPE).store(Batch("x", "a", "e", number, sent), checked.accepted, checked.refused)


@contextmanager
def variable(server: MySQL, name: str, value: str, after: str) -> Iterator[None]:
    """Set a variable of the whole server for the block."""
    engine = connect(server.url())
    with engine.begin() as connection:
        connection.execute(text(f"SET GLOBAL {name} = {value}"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"SET GLOBAL {name} = {after}"))
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
    refused = pytest.raises(WarehouseError, match=r"local infile|Loading local data is disabled")
    with refused, transaction(case_insensitive) as connection:
        connection.execute(text("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE plain"))


def test_a_strict_server_takes_tables_and_batches(mysql: MySQL, schema: str, received: Received) -> None:
    settings = text(
        "SELECT @@collation_database, @@sql_require_primary_key, @@max_allowed_packet, plugin "
        "FROM mysql.user WHERE user = 'dosel'"
    )
    strict, small = variable(mysql, "sql_require_primary_key", "ON", "OFF"), small_packets(mysql)
    with strict, small:
        engine = connect(schema)
        with transaction(engine) as connection:
            found = connection.execute(settings).one()
        put(engine, received(5_000))
        assert len(BatchStore(engine, COVERTYPE).clean()) > 4_000
        engine.dispose()
    assert tuple(found) == ("utf8mb4_0900_ai_ci", 1, 1 << 20, "caching_sha2_password")


def small_packets(server: MySQL) -> AbstractContextManager[None]:
    return variable(server, "max_allowed_packet", str(1 << 20), str(1 << 26))


def test_a_batch_is_stored_and_read_over_tls(mysql: MySQL, schema: str, received: Received) -> None:
    engine = connect(f"{schema}?ssl_ca={mysql.folder / 'ca.pem'}&ssl_check_hostname=false")
    put(engine, received(50))
    assert len(BatchStore(engine, COVERTYPE).clean()) == 50
    with transaction(engine) as connection:
        _, cipher = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()
    assert cipher
    engine.dispose()


def test_a_server_with_an_unknown_certificate_is_refused(mysql: MySQL, schema: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(base64.urlsafe_b64decode(new_certificate()))
    for authority, check_name in ((other, "false"), (mysql.folder / "ca.pem", "true")):
        engine = connect(f"{schema}?ssl_ca={authority}&ssl_check_hostname={check_name}")
        with pytest.raises(WarehouseError, match=r"CERTIFICATE_VERIFY_FAILED.*is ssl_ca the authority"):
            BatchStore(engine, COVERTYPE)
    with pytest.raises(SettingsError, match=r"ssl_ca names /nowhere/ca\.pem, which is not a file"):
        connect(f"{schema}?ssl_ca=/nowhere/ca.pem")


def test_a_value_above_max_allowed_packet_is_named_and_nothing_is_stored(mysql: MySQL, schema: str) -> None:
    engine = connect(schema)
    BatchStore(engine, COVERTYPE)
    engine.dispose()
    long = {"folder": "x" * (1 << 21), "now": datetime.now()}
    refused = pytest.raises(WarehouseError, match=r"exceed.* max_allowed_packet")
    with small_packets(mysql), refused, transaction(engine) as connection:
        connection.execute(text("INSERT INTO orphans VALUES (:folder, :now)"), [long | {"folder": "short"}])
        connection.execute(text("INSERT INTO orphans VALUES (:folder, :now)"), long)
    with transaction(engine) as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM orphans")) == 0


def test_a_read_only_server_is_read_and_refuses_a_batch_with_the_reason(
    mysql: MySQL, schema: str, received: Received
) -> None:
    engine = connect(schema)
    put(engine, received(3))
    with variable(mysql, "super_read_only", "ON", "OFF"):
        assert len(BatchStore(engine, COVERTYPE).records()) == 1
        with pytest.raises(WarehouseError, match=r"read-only.*does the address name a replica"):
            put(engine, received(3, seed=2), number=2)
    # It was turned on with it.
    with variable(mysql, "read_only", "OFF", "OFF"):
        put(engine, received(3, seed=2), number=2)


def test_an_account_of_the_removed_login_is_explained(mysql: MySQL, schema: str) -> None:
    engine = connect(schema)
    with pytest.raises(WarehouseError, match="MySQL 9 has no mysql_native_password"), transaction(engine) as connection:
        connection.execute(text("CREATE USER 'old'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY 'x'"))
