"""An index for the predictions of a use case in a period. One was declared before, and never created."""

from dosel.db.migrations.steps import create_index

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_index("ix_predictions_use_case_at", "predictions", ["use_case", "at"])
