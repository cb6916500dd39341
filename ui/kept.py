"""What a reader typed, and the answers, kept beyond a reload of the page.

A cookie of the browser's session names the reader. Rows stay out of the address, which browsers and proxies log.
"""

import secrets
from collections import OrderedDict
from typing import Any

import streamlit as st

COOKIE = "dosel-reader"
MOST_READERS = 200
"""Readers that the page remembers; of more, those who came first are forgotten."""

Kept = dict[str, dict[str, Any]]


def recognise() -> None:
    """Find out who the reader is; `kept` needs it."""
    script = ""
    if "kept" not in st.session_state:
        readers, token = _readers(), st.context.cookies.get(COOKIE, "")
        if token not in readers:
            token = secrets.token_urlsafe()
            script = f"document.cookie = '{COOKIE}={token}; path=/; SameSite=Strict'"
            readers[token] = {}
            while len(readers) > MOST_READERS:
                readers.popitem(last=False)
        st.session_state.kept = readers[token]
    # In every run: a missing element shifts the others, and Streamlit resets them.
    st.html(f"<script>{script}</script>", unsafe_allow_javascript=True)


def kept(what: str) -> dict[str, Any]:
    """What is kept of this kind, by use case."""
    found: dict[str, Any] = st.session_state.kept.setdefault(what, {})
    return found


@st.cache_resource(show_spinner=False)
def _readers() -> "OrderedDict[str, Kept]":
    return OrderedDict()
