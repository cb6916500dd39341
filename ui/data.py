"""The batch ledger and the quarantine."""

from typing import Any

import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.text import COUNTED, MOMENT, short
from ui.view import View

SHOWN = 200

RECEIVED = "Received"
COUNTS = {
    "rows_received": "Rows",
    "rows_clean": "Clean",
    "rows_refused": "Refused",
    "rows_duplicate": "Duplicates",
    "refused_share": "Share refused",
    "duplicate_share": "Share of duplicates",
}
"""The tables' headers, by the API's names."""

_PERCENT = st.column_config.NumberColumn(format="percent")
COLUMNS = {
    RECEIVED: st.column_config.DatetimeColumn(format=MOMENT, timezone="UTC"),
    COUNTS["refused_share"]: _PERCENT,
    COUNTS["duplicate_share"]: _PERCENT,
}


def show(view: View) -> None:
    """Show the totals, the batches and the refused rows."""
    name, client = view.name, view.api.client
    st.subheader("Batches")
    try:
        ledger = view.api.read(client.batches, name)
        refused = view.api.read(client.quarantine, name, SHOWN) if ledger["rows_refused"] else []
    except ServiceError as error:
        errors.show(error, "data")
        return
    st.markdown(f"[Ingest in Airflow]({view.dag_address('ingest')})")
    totals = {
        "Batches": ledger["count"],
        "Rows received": ledger["rows_received"],
        "Clean": ledger["rows_clean"],
        "Refused": ledger["rows_refused"],
        "Duplicates": ledger["rows_duplicate"],
    }
    with st.container(horizontal=True, gap="large"):
        for title, count in totals.items():
            st.metric(title, f"{count:,}", width="content")
    if ledger["batches"]:
        stored = [{"Id": batch["id"]} | _counts(batch) | _origin(batch) for batch in ledger["batches"]]
        st.dataframe(
            pd.DataFrame(stored), width="stretch", hide_index=True, key=f"batches-{name}", column_config=COLUMNS
        )
    if ledger["refused"]:
        st.markdown("**Refused as a whole**")
        refusals = [
            _counts(batch)
            | {"Reason": batch["reason"], "First reasons": "; ".join(batch["first_reasons"])}
            | _origin(batch)
            for batch in ledger["refused"]
        ]
        st.dataframe(
            pd.DataFrame(refusals), width="stretch", hide_index=True, key=f"refused-{name}", column_config=COLUMNS
        )
    st.subheader("Quarantine")
    if not refused:
        st.caption("No row was refused.")
        return
    st.caption(f"The newest {len(refused):,} of {ledger['rows_refused']:,} refused rows, as received. {COUNTED}")
    rows = [
        # `row_no` counts from 0; the page and the command line count from 1.
        {"Batch": _title(row), "Row": row["row_no"] + 1, "Reason": row["reason"]} | row["values"]
        for row in refused
    ]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True, key=f"quarantine-{name}")


def _title(batch: dict[str, Any]) -> str:
    return f"{batch['stream']} #{batch['number']}"


def _counts(batch: dict[str, Any]) -> dict[str, Any]:
    """What a reader looks for in a batch, by the table's headers."""
    known = {title: batch[name] for name, title in COUNTS.items() if name in batch}
    return {"Batch": _title(batch), RECEIVED: pd.to_datetime(batch["received_at"])} | known


def _origin(batch: dict[str, Any]) -> dict[str, str]:
    """Where a batch came from; of long hashes the beginning, since they would push the counts off the screen."""
    return {"Source": batch["source"], "SHA-256": short(batch["digest"]), "Epoch": short(batch["epoch"])}
