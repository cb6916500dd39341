"""Two versions side by side, on the same held-out rows."""

from collections import Counter
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.kept import kept
from ui.lineage import facts_of
from ui.view import View

COLOURS = ("#4c78a8", "#f58518")
"""Of the two versions."""

FEW, ALL = "#dfeae0", "#2f6b3a"
"""Colours of the cells of a confusion matrix, from none to all rows of a class."""

DARK_FROM = 0.83
"""The share of a class's rows from which white digits are easier to read than black ones."""


def show(view: View, versions: list[dict[str, Any]]) -> None:
    """Choose two versions, and show the last comparison: the API makes one only when it is asked to."""
    st.subheader("Two versions side by side")
    numbers = [version["version"] for version in versions]
    champion = next((version["version"] for version in versions if version["in_production"]), numbers[-1])
    other = next(number for number in numbers if number != champion)
    left, right, go = st.columns(3, vertical_alignment="bottom")
    names = {version["version"]: _name(version) for version in versions}
    a = left.selectbox(
        "Version a", numbers, numbers.index(champion), format_func=names.__getitem__, key=f"{view.name}-a"
    )
    b = right.selectbox("Version b", numbers, numbers.index(other), format_func=names.__getitem__, key=f"{view.name}-b")
    done: dict[str, Any] = kept("comparisons")
    if go.button("Compare", type="primary", width="stretch", disabled=a == b) and a and b:
        try:
            with st.spinner("predicting the held-out rows with both versions"):
                done[view.name] = view.api.client.compare(view.model, a, b)
        except ServiceError as error:
            done.pop(view.name, None)
            errors.show(error, "compare")
    if found := done.get(view.name):
        _show(view, found)


def _name(version: dict[str, Any]) -> str:
    state = ", Production" if version["in_production"] else ""
    return f"{version['version']}: {version['lineage']['family'] or 'unknown'}{state}"


def _show(view: View, found: dict[str, Any]) -> None:
    a, b = f"version {found['a']}", f"version {found['b']}"
    st.markdown(f"**{a.capitalize()} and {b}** on {found['rows']:,} held-out rows that neither was trained on.")
    if not found["rows"]:
        return
    with st.container(horizontal=True, gap="large"):
        right = {"Both right": "both", f"Only {a}": "only_a", f"Only {b}": "only_b", "Neither": "neither"}
        for title, name in right.items():
            st.metric(title, f"{found[name]:,}", width="content")
    st.altair_chart(_intervals(found, a, b), width="stretch", key=f"intervals-{view.name}")
    st.dataframe(_figures(found, a, b), width="stretch", hide_index=True, key=f"figures-{view.name}")
    st.caption(f"Intervals of {found['confidence']:.0%}. The difference is {b} minus {a}.")
    if found["answers"] is None:
        st.caption(
            "This use case is closed: it does not expose its training rows. No confusion matrices, and no figures of "
            "few rows."
        )
    else:
        _show_answers(view, found, a, b)
    st.markdown(f"**The gate's rules, with {b} as the challenger of {a}**")
    st.table(
        [
            {"Rule": rule["name"], "Result": "holds" if rule["holds"] else "fails", "Figures": rule["words"]}
            for rule in found["rules"]
        ]
    )
    _show_lineage(view, found, a, b)


def _intervals(found: dict[str, Any], a: str, b: str) -> alt.LayerChart | alt.FacetChart:
    data = pd.DataFrame(
        {"figure": _title(figure), "version": name, **figure[side]}
        for figure in found["figures"]
        for side, name in (("a", a), ("b", b))
    )
    base = alt.Chart(data).encode(
        y=alt.Y("figure:N", sort=list(dict.fromkeys(data["figure"])), title=None, axis=alt.Axis(labelLimit=190)),
        yOffset=alt.YOffset("version:N"),
        color=alt.Color(
            "version:N", title=None, scale=alt.Scale(domain=[a, b], range=COLOURS), legend=alt.Legend(orient="top")
        ),
        tooltip=[
            "figure:N",
            "version:N",
            *(alt.Tooltip(f"{name}:Q", format=".2%") for name in ("value", "low", "high")),
        ],
    )
    x = alt.X("low:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(zero=False, nice=False))
    return alt.layer(
        base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q"),
    ).properties(height=34 * len(found["figures"]) + 40)


def _figures(found: dict[str, Any], a: str, b: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Figure": _title(figure),
            "Rows": figure["rows"],
            a.capitalize(): _share(figure["a"], ".1%"),
            b.capitalize(): _share(figure["b"], ".1%"),
            "Difference": _share(figure["difference"], "+.1%"),
        }
        for figure in found["figures"]
    )


def _title(figure: dict[str, Any]) -> str:
    return f"{figure['name']}, {figure['slice']}" if figure["slice"] else str(figure["name"])


def _share(share: dict[str, Any], form: str) -> str:
    interval = "" if share["low"] is None else f" ({share['low']:{form}} to {share['high']:{form}})"
    return f"{share['value']:{form}}{interval}"


def _show_answers(view: View, found: dict[str, Any], a: str, b: str) -> None:
    labels = list(view.use_case["target"]["labels"].values())
    for column, side, name in zip(st.columns(2), ("a", "b"), (a, b), strict=True):
        with column:
            st.markdown(f"**Confusion matrix of {name}**")
            st.altair_chart(_matrix(found["answers"], side, labels), width="stretch", key=f"matrix-{side}-{view.name}")
    differ = [row for row in found["answers"] if row["a"] != row["b"]]
    st.markdown("**Where they disagree**")
    if not differ:
        st.caption("They answer every row with the same class.")
        return
    table = [
        {"True class": row["truth"], a.capitalize(): row["a"], b.capitalize(): row["b"], "Rows": row["rows"]}
        for row in differ
    ]
    st.dataframe(pd.DataFrame(table), width="stretch", hide_index=True, key=f"differ-{view.name}")


def _matrix(answers: list[dict[str, Any]], side: str, labels: list[str]) -> alt.LayerChart | alt.FacetChart:
    counts, totals = Counter[tuple[str, str]](), Counter[str]()
    for row in answers:
        counts[row["truth"], row[side]] += row["rows"]
        totals[row["truth"]] += row["rows"]
    data = pd.DataFrame(
        {"truth": truth, "answer": answer, "rows": rows, "share": rows / totals[truth]}
        for (truth, answer), rows in counts.items()
    )
    # Every class, also one that no row has: both matrices have the same rows and columns.
    classes = alt.Scale(domain=labels)
    # Vega leaves out labels whose boxes overlap, as those of slanted labels do.
    axis: dict[str, Any] = {"labelLimit": 110, "labelOverlap": False}
    base = alt.Chart(data).encode(
        x=alt.X("answer:N", scale=classes, title="answer", axis=alt.Axis(labelAngle=-45, **axis)),
        y=alt.Y("truth:N", scale=classes, title="true class", axis=alt.Axis(**axis)),
    )
    # By RGB, for which DARK_FROM holds.
    shades = alt.Scale(domain=[0, 1], range=[FEW, ALL], interpolate="rgb")
    colour = alt.Color("share:Q", legend=None, scale=shades)
    text = base.mark_text().encode(
        text=alt.Text("rows:Q", format=","),
        color=alt.condition(alt.datum["share"] > DARK_FROM, alt.value("#ffffff"), alt.value("#000000")),
    )
    return alt.layer(base.mark_rect().encode(color=colour, tooltip=["truth", "answer", "rows"]), text).properties(
        height=320
    )


def _show_lineage(view: View, found: dict[str, Any], a: str, b: str) -> None:
    with st.expander("Lineage"):
        try:
            one, other = (
                facts_of(view.api.read(view.api.client.version, view.model, found[side])) for side in ("a", "b")
            )
        except ServiceError as error:
            errors.show(error, "lineage")
            return
        st.dataframe(
            pd.DataFrame([{"": name, a.capitalize(): one[name], b.capitalize(): other.get(name, "")} for name in one]),
            width="stretch",
            hide_index=True,
            key=f"lineage-of-both-{view.name}",
        )
