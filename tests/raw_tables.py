"""What the raw tables have of a batch."""

import hashlib

import pyarrow as pa
from sqlalchemy import Engine, select

from dosel.db.engine import reading
from dosel.db.loading import lines
from dosel.db.tables import tables_of
from dosel.usecases import SURPLUS, UseCase


def raw_digest(engine: Engine, use_case: UseCase, batch_id: int) -> str:
    """The digest of a batch, computed from the raw table; the batch ledger has the same."""
    table = tables_of(use_case).raw
    names = (*use_case.columns, SURPLUS)
    columns = [table.c[name] for name in names]
    with reading(engine) as connection:
        rows = connection.execute(select(*columns).where(table.c.batch_id == batch_id).order_by(table.c.row_no)).all()
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    text = pa.table({name: pa.array(v, pa.string()) for name, v in zip(names, values, strict=True)})
    digest = hashlib.sha256()
    for part in lines(text):
        digest.update(part)
    return digest.hexdigest()
