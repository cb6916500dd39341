"""The events of a use case: what happened that a person should know."""

import streamlit as st

from dosel.errors import ServiceError
from ui import errors
from ui.text import moment, plain
from ui.view import View

SHOWN = 20
"""Most events on the page; `dosel events` has more."""

ICONS = {
    "promoted": ":material/verified:",
    "approval wanted": ":material/how_to_vote:",
    "refused": ":material/block:",
    "shadow": ":material/compare:",
    "harmed": ":material/heart_broken:",
    "batch refused": ":material/delete_sweep:",
    "task failed": ":material/error:",
    "stale": ":material/sync_problem:",
    "audit mismatch": ":material/report:",
}
"""The icon of each kind."""


def show(view: View, newest: int = SHOWN, kinds: frozenset[str] = frozenset(ICONS)) -> None:
    """Show those of the newest events that are of these kinds."""
    st.subheader("Events")
    try:
        events = [e for e in view.api.read(view.api.client.events, view.name, SHOWN) if e["kind"] in kinds][:newest]
    except ServiceError as error:
        errors.show(error, "events")
        return
    if not events:
        st.caption("Nothing has happened yet.")
    for event in events:
        with st.expander(f"{plain(event['what'])} · {moment(event['at'])}", icon=ICONS[event["kind"]]):
            st.markdown(f"Since {moment(event['since'])}. {plain(event['evidence'])}")
            st.link_button("Look", event["link"])
            st.code(event["command"], language="console")
