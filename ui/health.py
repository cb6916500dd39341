"""The health of the version in Production: its accuracy on labelled live rows against what the gate found."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dosel.client import ApiProblem
from dosel.errors import ServiceError
from dosel.wording import NEEDS_LABELS, NO_CONTEXT, NOTHING_PROMISED, ONLY_BATCHES, duration
from ui import errors, events
from ui.text import moment, plain
from ui.view import View

STATES = {
    "unknown": (":material/hourglass_empty:", "gray", "not known yet"),
    "as promised": (":material/verified:", "green", "as promised"),
    "harmed": (":material/report:", "red", "harmed"),
}
"""Icon, colour and words for each state."""

NOT_FOUND = 404


def show(view: View) -> None:
    """Show the state, the accuracy over time, each metric and the newest events."""
    use_case = view.use_case
    st.subheader("Health of the version in Production")
    try:
        health = view.api.read(view.api.client.health, view.name)
    except ServiceError as error:
        if isinstance(error, ApiProblem) and error.status == NOT_FOUND:
            st.caption("Nothing has been in Production yet.")
        else:
            errors.show(error, "health")
        return
    icon, colour, words = STATES[health["state"]]
    labels = f"{health['labels']:,} {'labelled live rows' if use_case['expose_training_rows'] else 'rows of batches'}"
    promised = health["findings"][0]["promised"]
    held_out = f", promised on {promised['total']:,} held-out rows" if promised and promised["total"] else ""
    st.markdown(f":{colour}-badge[{icon} {words}] &nbsp; version {health['version']} on {labels}{held_out}")
    if not use_case["expose_training_rows"]:
        st.caption(ONLY_BATCHES)
    if health["state"] == "harmed":
        _say_harm(use_case, health)
    if health["course"]:
        st.altair_chart(_course(health), width="stretch", key=f"course-{use_case['name']}")
    elif use_case["expose_training_rows"]:
        st.caption(
            "No labelled row has reached this version yet. New batches are scored before a model trains on them."
        )
    if health["state"] != "harmed":
        st.caption(_coverage(use_case, health["coverage"]))
    with st.expander("Accuracy and recall of each class"):
        st.dataframe(_metrics(health["findings"]), width="stretch", hide_index=True, key=f"metrics-{use_case['name']}")
        st.caption(
            "Promised: measured on the held-out rows of the gate. At least and at most: bounds of the live figure, "
            "valid however often you check."
        )
    with st.expander("Without labels"):
        _show_context(use_case["name"], health["context"])
    events.show(view, newest=5)


def _show_context(name: str, context: dict[str, Any] | None) -> None:
    if context is None:
        st.caption(NO_CONTEXT)
        return
    estimate, test = context["estimate"], context["two_sample"]
    if estimate["accuracy"] is None:
        st.markdown(f"Estimated accuracy: {plain(estimate['refused'])}.")
    else:
        bounds = f"{estimate['low']:.1%} to {estimate['high']:.1%}"
        st.markdown(f"Estimated accuracy **{estimate['accuracy']:.1%}** ({bounds}) on {context['answers']:,} answers.")
    if test is None:
        st.markdown(f"Comparison with training rows: {plain(context['unknown'])}.")
    else:
        st.markdown(
            f"A classifier tells these rows from training rows with AUC {test['auc']:.2f} (0.5: not at all), "
            f"p = {test['p_value']:.2f}. {context['outside']:.1%} of the rows have a value that no training row has."
        )
        st.dataframe(_changes(context["features"]), width="stretch", hide_index=True, key=f"changes-{name}")
        st.caption(
            "Effect: Wasserstein distance over the interquartile range for numbers, Jensen-Shannon distance for "
            "categories. By chance: the 95th percentile over random samples of training rows."
        )
    st.caption(NEEDS_LABELS)


def _changes(features: list[dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {
            "Feature": feature["title"],
            "Training rows → answered rows": feature["change"] or "not shown",
            "Effect": f"{feature['effect']:.2f}",
            "By chance": f"{feature['by_chance']:.2f}",
            "Outside": f"{feature['outside']:.1%}",
        }
        for feature in features
    ]
    return pd.DataFrame(rows)


def _say_harm(use_case: dict[str, Any], health: dict[str, Any]) -> None:
    harmed = [finding for finding in health["findings"] if finding["state"] == "harmed"]
    figures = "; ".join(
        f"{plain(finding['name'])} {_live(finding)}(promised {_share(finding['promised']['rate'])})"
        for finding in harmed
    )
    # There may be no version that a rollback could put back.
    what, command = ("put the previous version back", "rollback")
    if health["previous"] is None:
        what, command = ("train another version", "train")
    to_do = f"To {what} yourself: `dosel {command} {use_case['name']}`"
    if health["control"] is not None:
        to_do = (
            f"Version {health['control']} answers the same rows as control: the view Challenger shows if it is better"
        )
    st.error(
        f"Since {moment(health['harmed_since'])} this version is proven to be worse than the gate found: {figures}. "
        f"{_coverage(use_case, health['coverage'])} The events below say what dosel does about it. {to_do}.",
        icon=":material/report:",
    )


def _coverage(use_case: dict[str, Any], coverage: dict[str, Any]) -> str:
    if not coverage["answers"]:
        # Counts of a closed use case are in steps of ten.
        how_many = "No answer" if use_case["expose_training_rows"] else "Fewer than ten answers"
        return f"{how_many} of this version in the prediction log since it entered Production."
    if not use_case["expose_training_rows"]:
        return f"The true class is known for about {coverage['share']:.0%} of the logged answers."
    text = f"The true class is known for {coverage['labelled']:,} of {coverage['answers']:,} logged answers"
    if not coverage["labelled"]:
        return f"{text}."
    median, p90 = duration(coverage["delay_median"]), duration(coverage["delay_p90"])
    return f"{text} ({coverage['share']:.1%}): for half of these within {median}, for 90 % within {p90}."


def _course(health: dict[str, Any]) -> alt.LayerChart | alt.FacetChart:
    points = pd.DataFrame(health["course"])
    floor = min(0.5, float(points["low"].min()))
    scale = alt.Scale(domain=[floor, 1], nice=False)
    labels = alt.X("labels:Q", title="labelled live rows", axis=alt.Axis(format=",d", tickMinStep=1))
    tips = [
        alt.Tooltip("labels:Q", format=",d"),
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("accuracy", "low", "high")),
    ]
    base = alt.Chart(points).encode(x=labels)
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title="accuracy", scale=scale), y2="high:Q")
    line = base.mark_line(point=True).encode(y=alt.Y("accuracy:Q", axis=alt.Axis(format="%")), tooltip=tips)
    layers: list[alt.Chart] = [band, line]
    promised = health["findings"][0]["promised"]
    if promised and promised["rate"] is not None:
        rule = alt.Chart(pd.DataFrame({"promised": [promised["rate"]]}))
        layers.append(rule.mark_rule(strokeDash=[6, 4], color="gray").encode(y="promised:Q"))
        layers.append(
            rule.mark_text(text="promised by the gate", align="left", dx=4, dy=-7, color="gray").encode(
                x=alt.value(0), y="promised:Q"
            )
        )
    return alt.layer(*layers).properties(height=220)


def _live(finding: dict[str, Any]) -> str:
    """The live figure with a blank; nothing if it is not shown, as of a closed use case without labelled batches."""
    rate = finding["live"]["rate"]
    return "" if rate is None else f"{rate:.1%} "


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _metrics(findings: list[dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {
            "Metric": finding["name"],
            "Promised": _share(finding["promised"] and finding["promised"]["rate"]),
            "Live": _share(finding["live"]["rate"]),
            "At least": _share(finding["low"]),
            "At most": _share(finding["high"]),
            "Rows": finding["live"]["total"],
            "State": NOTHING_PROMISED if finding["promised"] and finding["promised"]["rate"] == 0 else finding["state"],
        }
        for finding in findings
    ]
    return pd.DataFrame(rows)
