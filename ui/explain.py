"""The explanation: contributions, principal components and nearest training rows."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dosel.client import ApiProblem
from dosel.errors import ServiceError
from ui import errors
from ui.answer import Asked
from ui.text import plain, sentence
from ui.view import View

FOR, AGAINST = "#4a9a5c", "#c9743f"
LINE = "#8a8a8a"
"""The colour of thin lines, visible in both themes."""

CLASSES = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#9d755d", "#72b7b2", "#eeca3b", "#ff9da6", "#8a8a8a")
"""Colours of classes: those of the theme are too alike."""

HEIGHT = 420
CONFLICT = 409
"""Status if the version has no training rows, or another version has been loaded since the answer."""


def show(view: View, asked: Asked, above: DeltaGenerator, is_old: bool) -> None:
    """Show the explanation by the version that gave the answer; the API is asked once for each answer.

    Args:
        above: a place above the answer, for what is unlike the training rows.
    """
    st.subheader("Why this answer")
    if asked.explanation is None:
        asked.explanation = _explain(view, asked)
    if isinstance(asked.explanation, ServiceError):
        _show_error(view, asked, asked.explanation)
        return
    if warnings := asked.explanation["warnings"]:
        lines = "\n".join(f"- {plain(sentence(warning['message']))}" for warning in warnings)
        above.warning(f"**Unlike the training rows:**\n{lines}", icon=":material/warning:")
    with st.container(key="old-explanation" if is_old else "new-explanation"):
        _show(view.use_case, asked.explanation)


def _explain(view: View, asked: Asked) -> dict[str, Any] | ServiceError:
    assert asked.answer is not None
    try:
        with st.spinner("explaining"):
            return view.api.client.explain(view.name, asked.row, asked.model, asked.answer["model"]["version"])
    except ServiceError as error:
        return error


def _show_error(view: View, asked: Asked, error: ServiceError) -> None:
    if isinstance(error, ApiProblem) and error.status == CONFLICT:
        st.info(f"**No explanation.** {plain(sentence(error.detail))}", icon=":material/info:")
    elif errors.show(error, "explain"):
        asked.explanation = _explain(view, asked)
        st.rerun()


def _show(use_case: dict[str, Any], found: dict[str, Any]) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        if found["contributions"]:
            _contributions(use_case, found["contributions"])
        else:
            st.caption("No contributions: this use case is closed and has too few training rows for them.")
    with right:
        if "projection" in found:
            _picture(use_case, found)
        else:
            _near_classes(found["near_classes"])
    if "neighbours" in found:
        _neighbours(use_case, found["neighbours"])
    st.caption(f"By {found['model']['name']} version {found['model']['version']}, which gave the answer.")


def _contributions(use_case: dict[str, Any], parts: dict[str, Any]) -> None:
    st.markdown(f"**Values for and against {parts['label']}**")
    features = {feature["name"]: feature for feature in use_case["features"]}
    data = pd.DataFrame(
        {
            "value": f"{c['title']}: {_format(features[c['feature']], c['value'])}",
            "contribution": c["contribution"],
            "low": c["contribution"] - 2 * (c["error"] or 0),
            "high": c["contribution"] + 2 * (c["error"] or 0),
        }
        for c in parts["features"]
    )
    # Named, since a chart that is updated in place keeps the order of the previous answer otherwise.
    place = alt.Y("value:N", sort=list(data["value"]), title=None, axis=alt.Axis(labelLimit=170))
    bars = (
        alt.Chart(data)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("contribution:Q", axis=alt.Axis(format="+.0%", title="Probability", tickCount=4)),
            y=place,
            color=alt.condition(alt.datum["contribution"] > 0, alt.value(FOR), alt.value(AGAINST)),
            tooltip=[
                alt.Tooltip("value:N", title="Value"),
                alt.Tooltip("contribution:Q", title="Contribution", format="+.1%"),
            ],
        )
    )
    layers = [bars]
    if not parts["exact"]:
        layers.append(alt.Chart(data).mark_rule(color=LINE).encode(x="low:Q", x2="high:Q", y=place))
    st.altair_chart(alt.layer(*layers).properties(height=HEIGHT), width="stretch")
    st.caption(_caption(parts))


def _caption(parts: dict[str, Any]) -> str:
    """How to read the contributions, and how exact they are."""
    sums = (
        f"The mean probability of {parts['label']} over training rows is {parts['base']:.1%}. The parts add up to the "
        f"{parts['output']:.1%} of this row."
    )
    if parts["exact"]:
        return f"{sums} Exact values, by {parts['method']}."
    return (
        f"{sums} Approximate values, by {parts['method']} ({parts['draws']:,} permutations in {parts['seconds']:.2f} "
        "s); the lines show two standard errors."
    )


def _picture(use_case: dict[str, Any], found: dict[str, Any]) -> None:
    st.markdown("**The row among training rows**")
    projection = found["projection"]
    classes = list(use_case["target"]["labels"].values())
    first, second = (f"Component {i} ({share:.0%})" for i, share in enumerate(projection["explained"], 1))
    colour = alt.Color(
        "label:N",
        title=None,
        scale=alt.Scale(domain=classes, range=CLASSES),
        legend=alt.Legend(orient="bottom", columns=2, labelLimit=130, symbolOpacity=1, symbolStrokeWidth=0),
    )
    x, y = alt.X("x:Q", title=first), alt.Y("y:Q", title=second)
    sample = alt.Chart(pd.DataFrame(projection["sample"])).mark_circle(size=28, opacity=0.45)
    near = alt.Chart(pd.DataFrame(found["neighbours"])).mark_circle(size=110, stroke=LINE, strokeWidth=2, opacity=1)
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
        f"The first two principal components of {len(projection['sample']):,} training rows. The cross is the row. "
        "Circles with a rim are its nearest neighbours: they are near in all dimensions, and may look far in two."
    )


def _neighbours(use_case: dict[str, Any], neighbours: list[dict[str, Any]]) -> None:
    st.markdown(f"**The {len(neighbours)} nearest training rows**")
    target = use_case["target"]["title"]
    table = [
        {"Distance": f"{near['distance']:.3f}", target: near["label"]}
        | {feature["title"]: _format(feature, near["row"][feature["name"]]) for feature in use_case["features"]}
        for near in neighbours
    ]
    st.dataframe(pd.DataFrame(table), width="stretch", hide_index=True, key=f"neighbours-{use_case['name']}")


def _near_classes(classes: list[dict[str, Any]]) -> None:
    st.markdown("**Classes of similar training rows**")
    for near in classes:
        st.markdown(f"{near['label']}: about {near['share']:.0%}")
    st.caption("This use case is closed: it does not expose its training rows. No values, no distances, no picture.")


def _format(feature: dict[str, Any], value: Any) -> str:
    if value is None:
        return "unknown"
    if feature["kind"] == "category":
        return str(next((choice["title"] for choice in feature["choices"] if choice["value"] == value), value))
    return f"{value:g} {feature['unit']}".strip()
