"""Problems that did not change Production, noted in the ledger."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from dosel.db import chain
from dosel.db.tables import NOTES
from dosel.db.types import fitting


@dataclass(frozen=True)
class Note:
    """A problem that did not change Production, noted after the entry with that sequence."""

    sequence: int
    at: datetime
    text: str


def add(connection: Connection, model: str, sequence: int, text: str) -> bool:
    """Add a note, unless the last one has the same text after the same entry; return whether it was added."""
    text = fitting(text)
    mine = select(NOTES).where(NOTES.c.model == model).order_by(NOTES.c.id.desc()).limit(1)
    before = connection.execute(mine).first()
    if before is not None and (before.sequence, before.text) == (sequence, text):
        return False
    now = datetime.now(UTC).replace(tzinfo=None)
    chain.add(connection, NOTES, {"model": model, "sequence": sequence, "at": now, "text": text})
    return True


def of_model(connection: Connection, model: str) -> list[Note]:
    """All notes of a model, oldest first, without those that are not as their entries in the chain say."""
    rows = chain.intact(connection, NOTES, NOTES.c.model == model)
    return [Note(row["sequence"], row["at"].replace(tzinfo=UTC), row["text"]) for row in rows]
