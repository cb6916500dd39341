"""Column types that SQLite and MySQL share, and MySQL's options for a table.

Names, digests and categories compare byte for byte (`utf8mb4_bin`): MySQL's own default ignores case.
Migrations use these types, so they must not change: a different type needs a new name.
"""

from typing import Any

from sqlalchemy import BigInteger, DateTime, Integer, Text
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
MOMENT = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
"""UTC, without a time zone, to the microsecond."""

LONG_TEXT = Text().with_variant(MEDIUMTEXT, "mysql", "mariadb")
"""Text that may exceed the 65,535 bytes of MySQL's TEXT: JSON, and values that a source sends."""

MOST_TEXT = 15_000
"""Most characters that `fitting` leaves, which MySQL's TEXT holds in any alphabet."""

AUTO_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite generates ids only for a column whose type is exactly INTEGER."""


def fitting(text: str) -> str:
    """The text, or as much of it as MySQL's TEXT holds: MySQL refuses a longer one, and with it the whole row."""
    return text[:MOST_TEXT]
