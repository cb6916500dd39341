"""The view of one row: the version in Production, the form, the answer and its explanation."""

import streamlit as st

from ui import answer, explain, form, production, what_if
from ui.view import View


def show(view: View) -> None:
    """Show the view."""
    st.markdown(view.use_case["summary"])
    available = production.show(view)
    left, right = st.columns([3, 2], gap="large")
    with left:
        typed = form.show(view.use_case)
    with right:
        shown = answer.show(view, typed, available)
    if shown is not None:
        asked, above = shown
        explain.show(view, asked, above, is_old=not asked.is_about(typed))
        what_if.show(view, asked)
