"""The answer: what it is called, how sure the model is, and which model it was."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.client import Client
from dosel.errors import ServiceError
from ui import errors
from ui.form import Sent


def show(client: Client, use_case: dict[str, Any], sent: Sent | None, well: bool) -> dict[str, Any] | None:
    """Asks the model if a row was sent and all is well so far; shows its answer and gives it."""
    st.subheader("The answer")
    if sent is None:
        st.caption("Fill in the form and press Predict.")
        return None
    if not well:
        st.caption("No answer, for the reason above. What you filled in is kept.")
        return None
    try:
        with st.spinner("asking the model"):
            answer = client.predict(use_case["name"], sent.row, model=sent.model)
    except ServiceError as error:
        errors.show(error, "answer")
        return None
    model, label = answer["model"], answer["label"]
    st.metric(use_case["target"]["title"], label, help=f"Code {answer['prediction']}")
    st.caption(f"{answer['probabilities'][label]:.0%} sure, says {model['name']} version {model['version']}")
    st.altair_chart(_chart(answer["probabilities"], label), width="stretch")
    return answer


def _chart(probabilities: dict[str, float], label: str) -> alt.Chart:
    data = pd.DataFrame({"class": list(probabilities), "probability": list(probabilities.values())})
    bars = (
        alt.Chart(data)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X("probability:Q", axis=alt.Axis(format="%", title="Probability"), scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("class:N", sort="-x", title=None, axis=alt.Axis(labelLimit=160, labelOverlap=False)),
            color=alt.condition(alt.datum["class"] == label, alt.value("#2f6b3a"), alt.value("#b9cdb9")),
            tooltip=[alt.Tooltip("class:N", title="Class"), alt.Tooltip("probability:Q", format=".1%")],
        )
    )
    chart: alt.Chart = bars.properties(height=32 * len(data) + 40)
    return chart
