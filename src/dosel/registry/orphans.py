"""When folders of artifacts were first seen without a run, since MLflow does not know a folder's age."""

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from dosel.db.tables import ORPHANS


def since(connection: Connection, folders: Collection[str]) -> dict[str, datetime]:
    """When each folder was first seen, now for new ones; folders that are not among them are forgotten."""
    seen = {row.folder: row.seen_at for row in connection.execute(select(ORPHANS))}
    now = datetime.now(UTC).replace(tzinfo=None)
    for folder in set(folders) - seen.keys():
        connection.execute(insert(ORPHANS).values(folder=folder, seen_at=now))
    for folder in seen.keys() - set(folders):
        connection.execute(delete(ORPHANS).where(ORPHANS.c.folder == folder))
    return {folder: seen.get(folder, now).replace(tzinfo=UTC) for folder in folders}
