"""The batch ledger and the quarantine."""

from typing import Any

import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.view import View

SHOWN = 200


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
    st.caption(f"[Ingest in Airflow]({view.dag_address('ingest')})")
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
    percent = st.column_config.NumberColumn(format="percent")
    shares = {"refused_share": percent, "duplicate_share": percent}
    if ledger["batches"]:
        st.dataframe(
            _table(ledger["batches"]).set_index("id"), width="stretch", key=f"batches-{name}", column_config=shares
        )
    if ledger["refused"]:
        st.markdown("**Refused as a whole**")
        refusals = _table(ledger["refused"]).drop(columns="first_reasons")
        refusals["first_reasons"] = ["; ".join(batch["first_reasons"]) for batch in ledger["refused"]]
        st.dataframe(refusals, width="stretch", hide_index=True, key=f"refused-{name}", column_config=shares)
    st.subheader("Quarantine")
    if not refused:
        st.caption("No row was refused.")
        return
    st.caption(f"The newest {len(refused):,} of {ledger['rows_refused']:,} refused rows, as received.")
    rows = [
        {"batch": f"{row['stream']} #{row['number']}", "row": row["row_no"], "reason": row["reason"]} | row["values"]
        for row in refused
    ]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True, key=f"quarantine-{name}")


def _table(batches: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(batches)
    table["received_at"] = pd.to_datetime(table["received_at"])
    return table
