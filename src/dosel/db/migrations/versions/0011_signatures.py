"""The signature of each version's files, in its manifest."""

from sqlalchemy import Column

from dosel.db.migrations.steps import add_columns
from dosel.db.types import LONG_TEXT

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    add_columns("manifests", Column("signature", LONG_TEXT))
