"""The ledger's evidence of each promotion. The first ledgers did not have it; later ones have these columns already."""

from sqlalchemy import Column, String

from dosel.db.migrations.steps import add_columns
from dosel.db.types import LONG_TEXT

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    add_columns(
        "promotions",
        Column("kind", String(16)),
        Column("to_run", String(64)),
        Column("data_digest", String(64)),
        Column("manifest_digest", String(64)),
        Column("metrics_before", LONG_TEXT),
        Column("metrics_after", LONG_TEXT),
        Column("gate", LONG_TEXT),
    )
