"""Why the model answered so: where the row lies, what it is near, what each value contributed."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.client import ApiProblem, Client
from dosel.errors import ServiceError
from ui import errors
from ui.form import Sent

FOR, AGAINST = "#2f6b3a", "#b3623b"
HEIGHT = 420
CONFLICT = 409
"""The version came without what explaining needs, or another has taken over since it answered."""


def show(client: Client, use_case: dict[str, Any], sent: Sent, answer: dict[str, Any]) -> None:
    """Asks why, of the very version that answered, and draws it."""
    st.subheader("Why this answer")
    version = answer["model"]["version"]
    try:
        with st.spinner("asking why"):
            found = client.explain(use_case["name"], sent.row, sent.model, version)
    except ServiceError as error:
        if isinstance(error, ApiProblem) and error.status == CONFLICT:
            st.info(f"**No explanation.** {error.detail[:1].upper()}{error.detail[1:]}.", icon=":material/info:")
        else:
            errors.show(error, "explain")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _contributions(use_case, found["contributions"])
    with right:
        _picture(use_case, found)
    _neighbours(use_case, found["neighbours"])
    st.caption(f"Explained by {found['model']['name']} version {found['model']['version']}, which gave the answer.")


def _contributions(use_case: dict[str, Any], parts: dict[str, Any]) -> None:
    st.markdown(f"**What speaks for {parts['label']}, and what against**")
    features = {feature["name"]: feature for feature in use_case["features"]}
    data = pd.DataFrame(
        {
            "value": f"{c['title']}: {_in_words(features[c['feature']], c['value'])}",
            "contribution": c["contribution"],
            "low": c["contribution"] - 2 * (c["error"] or 0),
            "high": c["contribution"] + 2 * (c["error"] or 0),
        }
        for c in parts["features"]
    )
    number_format = "+.1%" if parts["unit"] == "probability" else "+.2f"
    title = "Probability" if parts["unit"] == "probability" else "Log-odds"
    place = alt.Y("value:N", sort=None, title=None, axis=alt.Axis(labelLimit=170))
    bars = (
        alt.Chart(data)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X(
                "contribution:Q", axis=alt.Axis(format=number_format.replace(".1", ".0"), title=title, tickCount=4)
            ),
            y=place,
            color=alt.condition(alt.datum["contribution"] > 0, alt.value(FOR), alt.value(AGAINST)),
            tooltip=[
                alt.Tooltip("value:N", title="Value"),
                alt.Tooltip("contribution:Q", title="Contribution", format=number_format),
            ],
        )
    )
    layers = [bars]
    if not parts["exact"]:
        layers.append(alt.Chart(data).mark_rule().encode(x="low:Q", x2="high:Q", y=place))
    st.altair_chart(alt.layer(*layers).properties(height=HEIGHT), width="stretch")
    st.caption(_told(parts))


def _told(parts: dict[str, Any]) -> str:
    """How the contributions are to be read, and how far they can be trusted."""
    if parts["unit"] == "probability":
        sums = (
            f"On average over training rows the model gives {parts['label']} {parts['base']:.0%}; this row's values "
            f"make it {parts['output']:.0%}."
        )
    else:
        sums = (
            f"The model's score for {parts['label']} (log-odds) is {parts['base']:.2f} on average over training rows; "
            f"the values of this row make it {parts['output']:.2f}."
        )
    if parts["exact"]:
        return f"{sums} Exact, by {parts['method']}."
    return (
        f"{sums} An approximation, by {parts['method']}: {parts['draws']:,} draws in {parts['seconds']:.2f} s; the "
        "lines show two standard errors."
    )


def _picture(use_case: dict[str, Any], found: dict[str, Any]) -> None:
    st.markdown("**Where the row lies among training rows**")
    projection = found["projection"]
    classes = list(use_case["target"]["labels"].values())
    first, second = (f"Component {i} ({share:.0%})" for i, share in enumerate(projection["explained"], 1))
    colour = alt.Color(
        "label:N",
        title=None,
        scale=alt.Scale(domain=classes, scheme="tableau10"),
        legend=alt.Legend(orient="bottom", columns=2, labelLimit=130, symbolOpacity=1, symbolStrokeWidth=0),
    )
    x, y = alt.X("x:Q", title=first), alt.Y("y:Q", title=second)
    sample = alt.Chart(pd.DataFrame(projection["sample"])).mark_circle(size=28, opacity=0.45)
    near = alt.Chart(pd.DataFrame(found["neighbours"])).mark_circle(size=110, stroke="black", strokeWidth=2, opacity=1)
    itself = alt.Chart(pd.DataFrame([projection["row"]])).mark_point(
        shape="cross", size=260, filled=True, color="black", stroke="white", strokeWidth=1.5
    )
    label = alt.Tooltip("label:N", title="Class")
    distance = alt.Tooltip("distance:Q", title="Distance", format=".3f")
    chart = alt.layer(
        sample.encode(x=x, y=y, color=colour, tooltip=[label]),
        near.encode(x=x, y=y, color=colour, tooltip=[label, distance]),
        itself.encode(x=x, y=y),
    )
    st.altair_chart(chart.properties(height=HEIGHT), width="stretch")
    st.caption(
        f"A sample of {len(projection['sample']):,} training rows by their first two principal components. The cross "
        "is the row; circles with a rim are its nearest neighbours, which are near in all dimensions and need not look "
        "so in two."
    )


def _neighbours(use_case: dict[str, Any], neighbours: list[dict[str, Any]]) -> None:
    st.markdown(f"**The {len(neighbours)} nearest training rows**")
    target = use_case["target"]["title"]
    table = [
        {"Distance": f"{near['distance']:.3f}", target: near["label"]}
        | {
            feature["title"]: _in_words(feature, near["row"][feature["name"]])
            for feature in use_case["features"]
            if "row" in near
        }
        for near in neighbours
    ]
    st.dataframe(pd.DataFrame(table), width="stretch", hide_index=True, key=f"neighbours-{use_case['name']}")
    if not all("row" in near for near in neighbours):
        st.caption("The rows' own values are not shown for this use case.")


def _in_words(feature: dict[str, Any], value: Any) -> str:
    if value is None:
        return "unknown"
    if feature["kind"] == "category":
        return str(next((choice["title"] for choice in feature["choices"] if choice["value"] == value), value))
    return f"{value:g} {feature['unit']}".strip()
