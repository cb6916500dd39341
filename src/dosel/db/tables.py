"""The tables: fixed ones, and those of each use case, which are derived from its declaration.

A change of a fixed table needs a change here and a new file in `migrations/versions/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable, SchemaItem

from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL
from dosel.usecases import SURPLUS, Category, Feature, Number, UseCase

METADATA = MetaData()
"""The fixed tables."""


def _fixed(name: str, *items: SchemaItem) -> Table:
    return Table(name, METADATA, *items, **MYSQL)


BATCHES = _fixed(
    "batches",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("use_case", String(64), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("epoch", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("source", String(255), nullable=False),
    Column("received_at", MOMENT, nullable=False),
    Column("rows_received", Integer, nullable=False),
    Column("rows_clean", Integer, nullable=False),
    Column("rows_refused", Integer, nullable=False),
    Column("rows_duplicate", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("use_case", "stream", "epoch", "number"),
)

WRITERS = _fixed("writers", Column("use_case", String(64), primary_key=True))
"""One row for each use case, which a writer locks while it stores a batch, so that writers do not overlap."""

PREDICTIONS = _fixed(
    "predictions",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("request_id", String(64), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("use_case", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("asked", Text, nullable=False),
    Column("answered", Text, nullable=False),
    Index("ix_predictions_use_case_at", "use_case", "at"),
)
"""Requests that were answered before the table `answers` existed. dosel no longer adds rows."""

ANSWERS = _fixed(
    "answers",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("request_id", String(64), nullable=False),
    Column("row_no", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("trace_id", String(64)),
    Column("at", MOMENT, nullable=False),
    Column("use_case", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("features", LONG_TEXT, nullable=False),
    Column("features_key", BigInteger, nullable=False),
    Column("probabilities", LONG_TEXT, nullable=False),
    Column("answered", Integer, nullable=False),
    UniqueConstraint("request_id", "row_no"),
    Index("ix_answers_use_case_at", "use_case", "at"),
    Index("ix_answers_use_case_features_key", "use_case", "features_key"),
)
"""The prediction log. Each line is an answered row: number `row_no`, from 1, of the `rows` in its request."""

FEEDBACK = _fixed(
    "feedback",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("answer_id", BigInteger, nullable=False, unique=True),
    Column("at", MOMENT, nullable=False),
    Column("delay", Double, nullable=False),
    # Empty if this truth is not among the labelled rows of feedback.
    Column("sequence", Integer),
    Column("truth", Integer, nullable=False),
    Column("source", String(16), nullable=False),
    Column("reference", String(64), nullable=False),
)
"""The truth about logged answers, once for each; `delay` is seconds. Columns as in `truths`."""

PROMOTIONS = _fixed(
    "promotions",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    # Empty in the oldest entries, which were made before these columns.
    Column("kind", String(16)),
    Column("to_run", String(64)),
    Column("data_digest", String(64)),
    Column("manifest_digest", String(64)),
    Column("metrics_before", LONG_TEXT),
    Column("metrics_after", LONG_TEXT),
    Column("gate", LONG_TEXT),
    # What live rows showed, as JSON; empty if no shadow decided.
    Column("live", LONG_TEXT),
    # Number of the request that people approved; empty if none was needed.
    Column("request", Integer),
    UniqueConstraint("model", "sequence"),
)

APPROVAL_REQUESTS = _fixed(
    "approval_requests",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("manifest_digest", String(64), nullable=False),
    Column("gate_digest", String(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("expires_at", MOMENT, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    UniqueConstraint("model", "number"),
)
"""Promotions that wait, or waited, for people; `number` counts a model's from 1 (`dosel.registry.approvals`).

`sequence` is the ledger's last entry when the request was made; `gate_digest` is empty for a version without a verdict.
"""

APPROVALS = _fixed(
    "approvals",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("mac", String(64), nullable=False),
    UniqueConstraint("model", "number", "mac"),
)
"""Approvals of a request; `mac` authenticates the request with the holder's key."""

PROJECTIONS = _fixed(
    "projections", Column("model", String(128), primary_key=True), Column("sequence", Integer, nullable=False)
)
"""The last entry of the ledger that was written to MLflow's aliases; a later difference was made outside dosel."""

MANIFESTS = _fixed(
    "manifests",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("files", LONG_TEXT, nullable=False),
    # Empty in manifests that no training process recorded.
    Column("facts", LONG_TEXT),
    Column("family", String(64)),
    # Empty in manifests of an older dosel, which signed no versions.
    Column("signature", LONG_TEXT),
    UniqueConstraint("model", "version", "run_id"),
)
"""The digests of each version's files; version 0 is what a training process recorded, before there is a version."""

VERDICTS = Table(
    "verdicts",
    METADATA,
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("report", LONG_TEXT),
    Index("ix_verdicts_model_version", "model", "version"),
    **MYSQL,
)
"""The gate's verdicts, and refusals at registration, which have no report."""

ORPHANS = Table(
    "orphans",
    METADATA,
    Column("folder", String(512), primary_key=True),
    Column("seen_at", MOMENT, nullable=False),
    **MYSQL,
)
"""Folders of artifacts without a run, with the time `dosel gc` first saw each."""

NOTES = _fixed(
    "promotion_notes",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("text", Text, nullable=False),
)
"""Problems that did not change Production; `sequence` is the ledger's last entry at that time."""

SHADOWS = _fixed(
    "shadows",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("champion", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("ends_at", MOMENT, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("gate", LONG_TEXT),
    UniqueConstraint("model", "number"),
)
"""Each time that a version answered in shadow; `number` counts a model's from 1 (`dosel.registry.shadows`).

`sequence` is the ledger's entry that put the champion into Production."""

SHADOW_ENDS = _fixed(
    "shadow_ends",
    Column("model", String(128), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", MOMENT, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", LONG_TEXT, nullable=False),
)
"""The decision that ended a shadow, with its evidence as JSON. An open shadow has no row."""

SHADOW_ANSWERS = _fixed(
    "shadow_answers",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("row_no", Integer, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("probabilities", LONG_TEXT, nullable=False),
    Column("answered", Integer, nullable=False),
    # Milliseconds; the champion's is what the same row took in the request.
    Column("latency", Double, nullable=False),
    Column("champion_latency", Double),
    # The reference of the labelled rows that this answer is among; empty before its truth is known.
    Column("counted", String(64)),
    UniqueConstraint("request_id", "row_no", "model", "number"),
    Index("ix_shadow_answers_model_number", "model", "number"),
    Index("ix_shadow_answers_at", "at"),
)
"""Answers in shadow; request and row are those of the champion's answer in `answers`."""

SHADOW_TRUTHS = _fixed(
    "shadow_truths",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("source", String(16), nullable=False),
    Column("reference", String(64), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("truth", LONG_TEXT, nullable=False),
    Column("champion", LONG_TEXT, nullable=False),
    Column("shadow", LONG_TEXT, nullable=False),
    UniqueConstraint("model", "number", "source", "reference"),
)
"""Labelled rows that champion and shadow answered, in order; the last three columns are lists of class codes."""

TRUTHS = Table(
    "truths",
    METADATA,
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("use_case", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("source", String(16), nullable=False),
    Column("reference", String(64), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("truth", LONG_TEXT, nullable=False),
    Column("answered", LONG_TEXT, nullable=False),
    UniqueConstraint("model", "sequence", "source", "reference"),
    **MYSQL,
)
"""Labelled rows that a version answered, in order: a scored batch or a call of feedback in each row of this table.

`sequence` is the ledger's entry that put the version into Production; `truth` and `answered` are lists of class codes.
"""

CONTEXTS = _fixed(
    "contexts",
    Column("model", String(128), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", MOMENT, nullable=False),
    Column("last_answer", BigInteger, nullable=False),
    Column("document", LONG_TEXT, nullable=False),
)
"""What the newest answers of one version's time in Production show without labels (`dosel.monitor.context`).

`last_answer` is the id of the newest answer that was seen."""

REFUSED_BATCHES = _fixed(
    "refused_batches",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("use_case", String(64), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("epoch", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("source", String(255), nullable=False),
    Column("received_at", MOMENT, nullable=False),
    Column("rows_received", Integer, nullable=False),
    Column("rows_refused", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_reasons", LONG_TEXT, nullable=False),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("use_case", "stream", "epoch", "number", "digest"),
)
"""Batches that were refused as a whole; `first_reasons` is a JSON list. No row of theirs is stored."""

EVENTS = _fixed(
    "events",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("incident", String(255), nullable=False, unique=True),
    Column("use_case", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("since", MOMENT, nullable=False),
    Column("what", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("place", String(255), nullable=False),
)
"""Events that a person should know about, each written in the transaction of the change that it reports. Messages are
sent from this table."""

TARGETS = _fixed(
    "event_targets", Column("target", String(64), primary_key=True), Column("after_event", BigInteger, nullable=False)
)
"""Receivers of messages; each gets the events after `after_event`, the last one before it was configured."""

DELIVERIES = _fixed(
    "event_deliveries",
    Column("event_id", BigInteger, primary_key=True, autoincrement=False),
    Column("target", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_at", MOMENT, nullable=False),
    Column("delivered_at", MOMENT),
    Column("last_error", Text),
)
"""The attempts to deliver an event to a target. An event without attempts has no row."""


ENTRY_SIGNATURES = _fixed(
    "ledger_seals",
    Column("id", AUTO_ID, primary_key=True, autoincrement=True),
    Column("table_name", String(64), nullable=False),
    Column("row_key", String(255), nullable=False),
    Column("seal", String(512), nullable=False),
    Index("ix_ledger_seals_table_name_row_key", "table_name", "row_key"),
)
"""Signatures of rows of the ledgers (`dosel.registry.signed_entries`)."""

CHAIN = _fixed(
    "ledger_chain",
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("table_name", String(64), nullable=False),
    Column("row_key", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
"""The hash chain over the ledgers: entries of `dosel.db.chain`."""

CHAIN_HEAD = _fixed(
    "ledger_chain_head",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""One row, the last entry of the chain, which a writer locks while it appends."""


KEYS = ("batch_id", "row_no", "row_key")
"""The clean table's columns in addition to the declared ones."""


@dataclass(frozen=True)
class UseCaseTables:
    """A use case's own tables. The key of a row is its batch and its position in the batch.

    `raw` has each row as received, as text; the column `surplus` has values beyond the declared columns, as JSON.
    `clean` has the valid rows, typed and without duplicates. `quarantine` has the reasons for refused rows.
    """

    raw: Table
    clean: Table
    quarantine: Table


_TYPES: Mapping[str, Any] = {
    "text": String(64),
    "number": Double,
    # Half the bytes of a Double, and no decimals to print and read on the way.
    "whole": Integer,
    "long": BigInteger,
}


@cache
def use_case_tables(use_case_name: str, columns: tuple[tuple[str, str, bool], ...]) -> UseCaseTables:
    """The tables of a use case, from its columns: name, kind, and whether it is optional."""
    metadata = MetaData()

    def table(suffix: str, *own: Column[Any] | UniqueConstraint) -> Table:
        return Table(
            f"{use_case_name}_{suffix}",
            metadata,
            Column("batch_id", AUTO_ID, primary_key=True, autoincrement=False),
            Column("row_no", Integer, primary_key=True, autoincrement=False),
            *own,
            **MYSQL,
        )

    return UseCaseTables(
        raw=table("raw", *(Column(name, LONG_TEXT) for name, _, _ in columns), Column(SURPLUS, LONG_TEXT)),
        clean=table(
            "clean",
            Column("row_key", BigInteger, nullable=False, unique=True),
            *(Column(name, _TYPES[kind], nullable=optional) for name, kind, optional in columns),
        ),
        quarantine=table("quarantine", Column("reason", Text, nullable=False)),
    )


def tables_of(use_case: UseCase) -> UseCaseTables:
    kinds = ((feature.name, _kind(feature), feature.optional) for feature in use_case.features)
    return use_case_tables(use_case.name, (*kinds, (use_case.target.name, "whole", False)))


def _kind(feature: Feature) -> str:
    match feature:
        case Category():
            return "text"
        case Number(integer=True, minimum=low, maximum=high):
            return "whole" if max(-low, high) < 2**31 else "long"
        case _:
            return "number"


def create(connection: Connection, *tables: Table) -> None:
    """Create missing tables; several processes may do so at once."""
    for table in tables:
        connection.execute(CreateTable(table, if_not_exists=True))
