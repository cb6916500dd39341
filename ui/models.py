"""The registered versions of the use case's model."""

from typing import Any

import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.production import SCORES
from ui.view import View


def show(view: View) -> None:
    """Show the versions, newest first."""
    st.subheader("Versions")
    try:
        models = view.api.read(view.api.client.models)
    except ServiceError as error:
        errors.show(error, "models")
        return
    versions = next(model["versions"] for model in models if model["name"] == view.model)
    if not versions:
        st.caption("No version is registered yet.")
        return
    _list(view, versions)


def _list(view: View, versions: list[dict[str, Any]]) -> None:
    percent = st.column_config.NumberColumn(format="percent")
    rows = [
        {
            "version": version["version"],
            "state": "Production" if version["in_production"] else version["gate"]["verdict"] or "not judged",
            "family": version["lineage"]["family"],
            **{title: version["metrics"].get(name) for name, (title, _) in SCORES.items()},
            "held-out rows": version["lineage"]["rows_test"],
            "registered": pd.to_datetime(version["created_at"]),
            "run": view.run_address(version["run_id"]),
        }
        for version in versions
    ]
    st.dataframe(
        pd.DataFrame(rows),
        width="stretch",
        hide_index=True,
        key=f"versions-{view.name}",
        column_config={
            **{title: percent for title, _ in SCORES.values()},
            "run": st.column_config.LinkColumn(display_text="MLflow"),
        },
    )
    st.caption("Figures on the rows that were held out from each version's own training.")
