"""The versions in shadow: champion and challenger side by side on the same live rows."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from dosel.errors import ServiceError
from dosel.wording import ONLY_BATCHES, duration
from ui import errors, events
from ui.text import plain
from ui.view import View

ROLES = {
    "challenger": "may replace the champion",
    "control": "was in Production before, and comes back if it is proven better",
}


DECISIONS = frozenset({"promoted", "refused", "shadow"})
"""The kinds of events that say what became of challengers."""


def show(view: View) -> None:
    """Show each version in shadow, and what became of the last ones."""
    try:
        shadows = view.api.read(view.api.client.shadows, view.name)
    except ServiceError as error:
        errors.show(error, "challenger")
        return
    if not shadows:
        st.subheader("Challenger")
        st.caption(
            "No version is in shadow. If the use case declares a shadow, or `DOSEL_SHADOW` is set, the next version "
            "that passes the gate answers live rows in shadow first. Without a champion to compare with, a version is "
            "promoted at once."
        )
    for shadow in shadows:
        _show(view.use_case, shadow)
    events.show(view, newest=5, kinds=DECISIONS)


def _show(use_case: dict[str, Any], shadow: dict[str, Any]) -> None:
    evidence, version, champion = shadow["evidence"], shadow["version"], shadow["champion"]
    st.subheader(f"{shadow['role'].capitalize()}: version {version}")
    seconds = (datetime.fromisoformat(shadow["until"]) - datetime.now(UTC)).total_seconds()
    is_canary = shadow["share"] is not None
    task = f"It answers the same live rows as version **{champion}**, and clients do not see its answers."
    if is_canary:
        task = (
            f"Clients see its answers: it is a canary, and has answered {shadow['share']:.1%} of the one-row requests, "
            f"version **{champion}** the others."
        )
    st.markdown(
        f"Version **{version}** {ROLES[shadow['role']]}. {task} It {plain(shadow['now'])}. Time left: "
        f"{duration(max(0.0, seconds))}."
    )
    if shadow["waiting_for"]:
        st.warning(f"It does not answer now: {plain(shadow['waiting_for'])}.", icon=":material/hourglass_top:")
    of_what, counted = "Share of the labelled live rows.", "Rows whose true class is known."
    if is_canary:
        of_what = "Share of the values whose first labelled row was answered correctly."
        counted = "Values of the challenger that were compared with a block of the champion's."
    with st.container(horizontal=True, gap="large"):
        figures = {
            f"Version {version} correct": (_rate(evidence["shadow"]), of_what),
            f"Version {champion} correct": (_rate(evidence["champion"]), of_what),
            "Compared values" if is_canary else "Labelled rows": (f"{evidence['labels']:,}", counted),
            "Evidence": (
                f"{evidence['e_value']:.2g} of {evidence['e_needed']:.0f}" if evidence["labels"] else "none yet",
                "Evidence (e-value) that the version in shadow is better; at the second figure, that is proven.",
            ),
        }
        for title, (figure, help_) in figures.items():
            st.metric(title, figure, help=help_, width="content")
    if not use_case["expose_training_rows"]:
        st.caption(ONLY_BATCHES)
    st.caption(_traffic(shadow))
    option = " --control" if shadow["role"] == "control" else ""
    st.caption(
        f"You may decide at any time: `dosel shadow promote|refuse|stop {use_case['name']}{option} --reason …`, or "
        "`POST /models/…/shadow/…` with a promoter's key."
    )
    if evidence["only_shadow"] is not None:
        with st.expander("Both versions on the same labelled rows"):
            st.dataframe(
                _both(evidence, version, champion), width="stretch", hide_index=True, key=f"both-{shadow['number']}"
            )
    with st.expander("Where they disagree"):
        _show_disagreements(use_case, shadow)


def _both(evidence: dict[str, Any], version: int, champion: int) -> pd.DataFrame:
    rows = {
        "both": evidence["both_right"],
        f"only version {version}": evidence["only_shadow"],
        f"only version {champion}": evidence["only_champion"],
        "neither": evidence["both_wrong"],
    }
    return pd.DataFrame({"Answered correctly": list(rows), "Rows": list(rows.values())})


def _show_disagreements(use_case: dict[str, Any], shadow: dict[str, Any]) -> None:
    found = shadow["disagreements"]
    if not found:
        st.caption("There is no row yet that they answer differently.")
        return
    table = pd.DataFrame(
        [
            {
                f"Version {shadow['version']}": row["shadow"],
                f"Version {shadow['champion']}": row["champion"],
                "True class": row["truth"] or "not known yet",
                **{name: f"{value:g}" if isinstance(value, float) else value for name, value in row["values"].items()},
            }
            for row in found
        ]
    )
    st.dataframe(
        table.astype(str), width="stretch", hide_index=True, key=f"differ-{use_case['name']}-{shadow['number']}"
    )


def _traffic(shadow: dict[str, Any]) -> str:
    words = [f"{shadow['answers']:,} rows answered by both"] if shadow["share"] is None else []
    if shadow["agreement"] is not None:
        words.append(f"{shadow['agreement']:.1%} with the same class")
    if shadow["latency_ms"] is not None:
        words.append(f"{shadow['latency_ms']:.2f} ms a row")
    if shadow["dropped"]:
        words.append(f"{shadow['dropped']:,} rows left out while the API was busy")
    return " · ".join(words)


def _rate(tally: dict[str, Any]) -> str:
    return "–" if tally["rate"] is None else f"{tally['rate']:.1%}"
