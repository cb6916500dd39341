"""Column types that SQLite and MySQL share, and MySQL's options for a table.

Names, digests and categories compare byte for byte (`utf8mb4_bin`): MySQL's own default ignores case.
Migrations rest on these: they do not change. A type that is to differ gets a new name.
"""

from typing import Any

from sqlalchemy import BigInteger, DateTime, Integer, Text
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT

MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
MOMENT = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
"""UTC, without a time zone, to the microsecond."""

LONG_TEXT = Text().with_variant(MEDIUMTEXT, "mysql", "mariadb")
"""Text that may outgrow MySQL's TEXT, which ends at 65,535 bytes: JSON, and what a source sends."""

AUTO_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column whose type is exactly INTEGER."""
