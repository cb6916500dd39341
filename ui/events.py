"""The events of a use case: what happened that a person should know."""

from typing import Any

import streamlit as st

from dosel.client import Client
from dosel.errors import ServiceError
from ui.text import moment, plain

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


def show(client: Client, use_case: dict[str, Any]) -> None:
    """Show a section that is closed at first and fetches its data when it is opened."""
    name = use_case["name"]
    if not st.toggle("Events", key=f"events-{name}"):
        return
    try:
        events = client.events(name, SHOWN)
    except ServiceError:
        # The message at the top of the page already has the reason.
        st.caption("The events cannot be read now.")
        return
    if not events:
        st.caption("Nothing has happened yet.")
    for event in events:
        with st.expander(f"{plain(event['what'])} · {moment(event['at'])}", icon=ICONS[event["kind"]]):
            st.markdown(f"Since {moment(event['since'])}. {plain(event['evidence'])}")
            st.link_button("Look", event["link"])
            st.code(event["command"], language="console")
