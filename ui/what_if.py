"""What if: the probabilities along the values of one field, with the other fields as they were sent."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.answer import Asked
from ui.explain import CLASSES, LINE
from ui.view import View

POINTS = 41
"""Values of a number that are asked about, beside the one that was sent."""


def show(view: View, asked: Asked) -> None:
    """Show a section that is closed at first; opened, it asks about the values of the chosen field."""
    name = view.name
    if not st.toggle("What if one value were different?", key=f"what-if-{name}"):
        return
    features = {feature["name"]: feature for feature in view.use_case["features"]}
    left, right = st.columns([1, 2], gap="large")
    chosen = left.selectbox(
        "Field",
        list(features),
        list(features).index(first_field(features, asked.explanation)),
        format_func=lambda n: features[n]["title"],
        key=f"what-{name}",
    )
    feature, row = features[chosen], asked.row
    values = _values(feature, row[chosen])
    if chosen not in asked.what_if:
        try:
            with st.spinner("predicting"):
                asked.what_if[chosen] = _ask(view, asked, chosen, values)
        except ServiceError as error:
            errors.show(error, "what-if")
            return
    titles = _titles(feature)
    value = right.select_slider(
        feature["title"],
        values,
        row[chosen] if row[chosen] in values else values[0],
        format_func=lambda v: titles.get(v, f"{v}"),
        key=f"if-{name}-{chosen}",
    )
    found = dict(zip(values, asked.what_if[chosen], strict=True))
    st.altair_chart(
        _chart(view.use_case, feature, found, value, row[chosen]), width="stretch", key=f"along-{name}-{chosen}"
    )
    label, unit = found[value]["label"], feature.get("unit", "")
    st.caption(
        f"With {titles.get(value, value)} {unit} the answer is {label}, with a probability of "
        f"{found[value]['probabilities'][label]:.0%}. The other values are those of the answer above. The prediction "
        "log does not keep such rows, which nobody observed."
    )


def first_field(features: dict[str, dict[str, Any]], explanation: dict[str, Any] | ServiceError | None) -> str:
    """The number with the strongest contribution to the answer; without an explanation, the first number.

    The first field, if there is no number.
    """
    numbers = [name for name, feature in features.items() if feature["kind"] == "number"]
    parts = explanation.get("contributions") if isinstance(explanation, dict) else None
    strength = {part["feature"]: abs(part["contribution"]) for part in parts["features"]} if parts else {}
    return max(numbers, key=lambda name: strength.get(name, 0.0), default=next(iter(features)))


def _ask(view: View, asked: Asked, chosen: str, values: list[Any]) -> list[dict[str, Any]]:
    assert asked.answer is not None
    rows = [asked.row | {chosen: value} for value in values]
    # By the version that gave the answer, also if another one is in Production by now.
    return view.api.client.what_if(view.name, rows, version=asked.answer["model"]["version"])


def _values(feature: dict[str, Any], sent: Any) -> list[Any]:
    """The values to ask about, in order: all of a category, and of a number some at even distances and the sent one."""
    if feature["kind"] == "category":
        return [choice["value"] for choice in feature["choices"]]
    low, high = feature["low"], feature["high"]
    even = (low + (high - low) * step / (POINTS - 1) for step in range(POINTS))
    values = {round(value) if feature["whole"] else round(value, 6) for value in even}
    return sorted(values | ({sent} if sent is not None else set()))


def _titles(feature: dict[str, Any]) -> dict[Any, str]:
    return {choice["value"]: choice["title"] for choice in feature.get("choices", ())}


def _chart(
    use_case: dict[str, Any], feature: dict[str, Any], found: dict[Any, dict[str, Any]], value: Any, sent: Any
) -> alt.LayerChart | alt.FacetChart:
    titles, classes = _titles(feature), list(use_case["target"]["labels"].values())
    data = pd.DataFrame(
        {"value": titles.get(at, at), "class": label, "probability": probability}
        for at, answer in found.items()
        for label, probability in answer["probabilities"].items()
    )
    title = f"{feature['title']} ({feature['unit']})" if feature.get("unit") else feature["title"]
    x = alt.X(f"value:{'O' if titles else 'Q'}", title=title, sort=None, axis=alt.Axis(labelLimit=120))
    lines = (
        alt.Chart(data)
        .mark_line(point=bool(titles))
        .encode(
            x=x,
            y=alt.Y("probability:Q", title="Probability", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "class:N",
                title=None,
                scale=alt.Scale(domain=classes, range=CLASSES),
                legend=alt.Legend(orient="bottom", columns=3, labelLimit=140),
            ),
            tooltip=["class:N", "value", alt.Tooltip("probability:Q", format=".1%")],
        )
    )
    marks = pd.DataFrame(
        {"value": titles.get(at, at), "dash": dash} for at, dash in ((sent, 4), (value, 0)) if at is not None
    )
    rules = (
        alt.Chart(marks)
        .mark_rule(color=LINE, strokeWidth=2)
        .encode(
            x=x,
            strokeDash=alt.StrokeDash("dash:O", legend=None, scale=alt.Scale(domain=[0, 4], range=[[1, 0], [4, 4]])),
        )
    )
    return alt.layer(lines, rules).properties(height=360)
