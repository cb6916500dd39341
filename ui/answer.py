"""The answer: its label, the probabilities, and the model that answered."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.client import ApiProblem, Client
from dosel.errors import ServiceError
from ui import errors
from ui.form import Sent


def show(client: Client, use_case: dict[str, Any], sent: Sent | None, available: bool) -> dict[str, Any] | None:
    """Send the row to the API and show the answer; return it, or None if there is none."""
    st.subheader("The answer")
    if sent is None:
        st.caption("Fill in the form and press Predict.")
        return None
    if not available:
        st.caption("No answer, for the reason above. The form keeps its values.")
        return None
    try:
        with st.spinner("predicting"):
            answer = client.predict(use_case["name"], sent.row, model=sent.model)
    except ServiceError as error:
        if isinstance(error, ApiProblem) and error.errors:
            st.warning("**No prediction**, because of the values marked in the form.", icon=":material/front_hand:")
            for other in sent.show_errors(error.errors):
                st.markdown(other["message"])
        else:
            errors.show(error, "answer")
        return None
    model, label = answer["model"], answer["label"]
    st.metric(use_case["target"]["title"], label, help=f"Code {answer['prediction']}")
    st.caption(f"Probability {answer['probabilities'][label]:.0%}, by {model['name']} version {model['version']}")
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
