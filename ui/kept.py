"""What a reader typed and was answered, kept beyond a reload of the page.

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


def kept(what: str) -> dict[str, Any]:
    """What is kept of this kind, by use case."""
    if "kept" not in st.session_state:
        st.session_state.kept = _of_reader()
    found: dict[str, Any] = st.session_state.kept.setdefault(what, {})
    return found


def _of_reader() -> Kept:
    readers, token = _readers(), st.context.cookies.get(COOKIE, "")
    if token not in readers:
        token = secrets.token_urlsafe()
        cookie = f"{COOKIE}={token}; path=/; SameSite=Strict"
        st.html(f"<script>document.cookie = {cookie!r}</script>", unsafe_allow_javascript=True)
        readers[token] = {}
        while len(readers) > MOST_READERS:
            readers.popitem(last=False)
    return readers[token]


@st.cache_resource(show_spinner=False)
def _readers() -> "OrderedDict[str, Kept]":
    return OrderedDict()
