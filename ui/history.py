"""The promotion ledger as a timeline, with the gate's table and the lineage of each entry."""

from typing import Any

import streamlit as st

from dosel.actors import readable
from dosel.errors import ServiceError
from ui import errors, events
from ui.lineage import facts_of
from ui.text import moment, plain
from ui.view import View

SHOWN = 20
"""Most entries on the page; the CSV has all of them."""

KINDS = {
    "gate": (":material/verified:", "promoted by the gate"),
    "shadow": (":material/compare:", "proven better on live rows"),
    "manual": (":material/front_hand:", "promoted by hand"),
    "rollback": (":material/undo:", "rolled back"),
    "followed": (":material/call_split:", "moved in MLflow"),
}
"""Icon and words for each kind of entry."""


def show(view: View) -> None:
    """Show the ledger, newest entry first, and the events."""
    _show_ledger(view)
    events.show(view)


def _show_ledger(view: View) -> None:
    st.subheader("History of Production")
    client, model = view.api.client, view.model
    try:
        history, waiting = view.api.read(client.history, model), view.api.read(client.approvals, model)
    except ServiceError as error:
        errors.show(error, "history")
        return
    for request in waiting:
        _show_request(request)
    entries = history["entries"][::-1]
    if not entries:
        st.caption("Nothing has been in Production yet.")
        return
    holdout = history["holdout"]
    st.caption(
        f"Comparisons of versions by the gate on this holdout: {holdout['looks']}. After {holdout['left']} more "
        "comparisons, another part of the rows becomes the holdout."
    )
    for note in history["notes"][::-1][:3]:
        st.warning(f"{moment(note['at'])}: {plain(note['text'])}", icon=":material/report:")
    for entry in entries[:SHOWN]:
        _entry(view, entry)
    if len(entries) > SHOWN:
        st.caption(f"The newest {SHOWN} of {len(entries)} entries.")
    st.download_button(
        "The whole ledger as CSV",
        lambda: client.history_csv(model),
        f"{model}-history.csv",
        "text/csv",
        on_click="ignore",
    )


def _show_request(request: dict[str, Any]) -> None:
    agreed = ", ".join(map(plain, request["approved_by"])) or "nobody"
    st.info(
        f"Version **{request['version']}** waits for approvals until {moment(request['expires_at'])}; agreed so far: "
        f"{agreed} ({request['people']} people needed). "
        f"{plain(request['reason'][:1].upper() + request['reason'][1:])}. To agree, send "
        f"`POST /models/…/promote` or run `dosel promote` with your own key.",
        icon=":material/how_to_vote:",
    )


def _entry(view: View, entry: dict[str, Any]) -> None:
    client, model = view.api.client, view.model
    before = f"after version {entry['from_version']}" if entry["from_version"] else "the first one"
    icon, words = KINDS[entry["kind"]]
    title = f"**Version {entry['to_version']}**, {before} · {moment(entry['at'])} · {words}"
    with st.expander(title, icon=icon):
        st.markdown(f"{plain(entry['reason'][:1].upper() + entry['reason'][1:])}.")
        st.caption(f"By {plain(readable(entry['actor']))}.")
        if entry["gate"]:
            st.table(
                [
                    {"Rule": rule["name"], "Result": "holds" if rule["holds"] else "fails", "Figures": rule["words"]}
                    for rule in entry["gate"]["rules"]
                ]
            )
            if look := entry["gate"]["look"]:
                st.caption(
                    f"Look {look['number']} of {look['of']} at this holdout. The gate had compared versions on these "
                    f"rows {look['seen']:.1f} times before. This comparison may use {look['share']:.1%} of the "
                    "tolerance."
                )
        st.download_button(
            "Model card",
            lambda: client.card(model, entry["to_version"]),
            f"{model}-{entry['to_version']}.md",
            "text/markdown",
            key=f"card-{model}-{entry['sequence']}",
            on_click="ignore",
        )
        # Only after a click, since it takes a call to MLflow.
        if st.toggle("Show lineage", key=f"lineage-{model}-{entry['sequence']}"):
            _lineage(view, entry["to_version"])


def _lineage(view: View, number: int) -> None:
    try:
        detail = view.api.read(view.api.client.version, view.model, number)
    except ServiceError as error:
        st.caption(f"The lineage cannot be read now: {plain(str(error))}.")
        return
    st.markdown("\n".join(f"- {name}: `{value}`" for name, value in facts_of(detail).items()))
