"""The view of the registered versions: their list, their figures over time, and two of them side by side."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import comparison, errors
from ui.explain import CLASSES, LINE
from ui.production import SCORES
from ui.text import MOMENT
from ui.view import View


def show(view: View) -> None:
    """Show the versions, newest first; two of them are compared on request."""
    st.subheader("Versions")
    try:
        models = view.api.read(view.api.client.models)
    except ServiceError as error:
        errors.show(error, "models")
        return
    versions = next(model["versions"] for model in models if model["name"] == view.model)
    if not versions:
        st.markdown(
            f"No version is registered yet. [A training in Airflow]({view.dag_address('train')}) registers one."
        )
        return
    _list(view, versions)
    if len(versions) > 1:
        _show_course(view, versions)
        comparison.show(view, versions)


def _list(view: View, versions: list[dict[str, Any]]) -> None:
    percent = st.column_config.NumberColumn(format="percent")
    rows = [
        {
            "Version": version["version"],
            "State": "Production" if version["in_production"] else version["gate"]["verdict"] or "not judged",
            "Family": version["lineage"]["family"],
            **{title: version["metrics"].get(name) for name, (title, _) in SCORES.items()},
            "Held-out rows": version["lineage"]["rows_test"],
            "Registered": pd.to_datetime(version["created_at"]),
            "Run": view.run_address(version),
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
            "Registered": st.column_config.DatetimeColumn(format=MOMENT, timezone="UTC"),
            "Run": st.column_config.LinkColumn(display_text="MLflow"),
        },
    )
    st.caption("Figures on the rows that were held out from each version's own training.")


def _show_course(view: View, versions: list[dict[str, Any]]) -> None:
    """Draw a figure of all versions by the time of their registration."""
    known = {name: words for name, words in SCORES.items() if any(name in version["metrics"] for version in versions)}
    if not known:
        return
    st.subheader("Versions over time")
    name = st.selectbox("Figure", list(known), format_func=lambda name: known[name][0], label_visibility="collapsed")
    data = pd.DataFrame(
        {
            "registered": pd.to_datetime(version["created_at"]),
            "version": version["version"],
            "family": version["lineage"]["family"] or "unknown",
            "state": "in Production" if version["in_production"] else "not in Production",
            "figure": version["metrics"].get(name),
        }
        for version in versions
    )
    base = alt.Chart(data).encode(
        x=alt.X("version:Q", title="Version", axis=alt.Axis(format="d", tickMinStep=1)),
        y=alt.Y("figure:Q", title=known[name][0], axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
        color=alt.Color(
            "family:N",
            title=None,
            scale=alt.Scale(range=CLASSES),
            legend=alt.Legend(orient="bottom", columns=2, labelLimit=0, symbolOpacity=1),
        ),
        tooltip=[
            *(alt.Tooltip(f"{part}:N") for part in ("version", "family", "state")),
            alt.Tooltip("registered:T", format="%d %B %Y, %H:%M"),
            alt.Tooltip("figure:Q", format=".2%"),
        ],
    )
    # On a line of its own, in a colour that both themes show: by default its symbols are black.
    states = alt.Legend(orient="top", symbolFillColor=LINE, symbolStrokeColor=LINE)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        shape=alt.Shape("state:N", title=None, legend=states)
    )
    chart = alt.layer(base.mark_line(opacity=0.6), points).properties(height=320)
    st.altair_chart(chart, width="stretch", key=f"course-of-versions-{view.name}")
