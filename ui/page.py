"""The whole page: the use case, the version in Production, the form and the answer."""

from typing import Any

import streamlit as st

from dosel.client import Client
from dosel.errors import ServiceError
from dosel.settings import Settings
from ui import answer, batches, challenger, errors, events, explain, form, health, production, timeline

TIMEOUT_SECONDS = 10

STYLE = """
<style>
  .block-container { max-width: 72rem; padding-top: 3rem; padding-bottom: 4rem; }
  @media (max-width: 640px) { .block-container { padding-left: 1rem; padding-right: 1rem; } }
</style>
"""


def show() -> None:
    """Show the page; Streamlit runs it at each click."""
    st.set_page_config(page_title="dosel", page_icon="🌲", layout="wide")
    st.html(STYLE)
    # The reader's own key: with one of the page's, everybody who opens the page would have it.
    key = st.session_state.get("key", "")
    client = Client(Settings.load().api_url, timeout=TIMEOUT_SECONDS, attempts=1, key=key)
    try:
        st.session_state.described = client.described()
    except ServiceError as error:
        if "described" not in st.session_state:
            st.title("dosel")
            errors.show(error, "page")
            return
        # The API has stopped: the form keeps its values, and the sections below show the error.
    use_case = _chosen(st.session_state.described["use_cases"])
    if st.session_state.described["needs_key"]:
        st.text_input(
            "Key",
            key="key",
            type="password",
            placeholder="this installation asks for a key",
            help="The page sends the key with each request and forgets it when it is closed.",
        )
    st.caption("dosel · predictions by the model in Production")
    st.title(use_case["title"])
    st.markdown(use_case["summary"])
    available = production.show(client, use_case)
    st.divider()
    left, right = st.columns([3, 2], gap="large")
    with left:
        sent = form.show(use_case)
    with right:
        answered = answer.show(client, use_case, sent, available)
    if sent and answered:
        st.divider()
        explain.show(client, use_case, sent, answered)
    st.divider()
    health.show(client, use_case)
    challenger.show(client, use_case)
    st.divider()
    timeline.show(client, use_case)
    st.divider()
    events.show(client, use_case)
    st.divider()
    batches.show(client, use_case)


def _chosen(use_cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The selected use case."""
    by_name = {use_case["name"]: use_case for use_case in use_cases}
    default = next((u["name"] for u in use_cases if u["default"]), use_cases[0]["name"])
    if len(by_name) == 1:
        return by_name[default]
    names = list(by_name)
    picked = st.segmented_control(
        "Use case",
        names,
        default=default,
        format_func=lambda name: by_name[name]["title"],
        label_visibility="collapsed",
    )
    return by_name[picked or default]
