"""The page's frame: the use case, the key, and the navigation between the views."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from dosel.errors import ServiceError
from dosel.settings import Settings
from ui import challenger, data, errors, health, history, many_rows, models, predict
from ui.kept import recognise
from ui.text import plain
from ui.view import Api, View

VIEWS: dict[str, tuple[str, str, Callable[[View], None]]] = {
    "predict": ("Predict", ":material/psychology:", predict.show),
    "many-rows": ("Many rows", ":material/table_rows:", many_rows.show),
    "models": ("Models", ":material/model_training:", models.show),
    "health": ("Health", ":material/monitor_heart:", health.show),
    "challenger": ("Challenger", ":material/compare:", challenger.show),
    "data": ("Data", ":material/database:", data.show),
    "history": ("History", ":material/history:", history.show),
}
"""Title, icon and content of each view, by its path in the address."""

DEFAULT, ROOT = "predict", "root"
"""The path of the default view, and Streamlit's name for the address without a path."""

SHOWN = 40
"""Most characters of an unknown name that the page repeats."""

STYLE = """
<style>
  .block-container { max-width: 72rem; padding-top: 4.5rem; padding-bottom: 4rem; }
  .st-key-answer { scroll-margin-top: 4.5rem; }
  .st-key-old-answer, .st-key-old-explanation { opacity: 0.4; }
  @media (max-width: 640px) {
    .block-container { padding-left: 1rem; padding-right: 1rem; }
    h1 { font-size: 1.75rem !important; }
  }
</style>
"""


def show() -> None:
    """Show the page; Streamlit runs it at each click."""
    st.set_page_config(page_icon="🌲", layout="wide")
    st.html(STYLE)
    recognise()
    view = _chosen(Settings.load())
    pages = [_page(view, path, ROOT, default=True) if path == DEFAULT else _page(view, path, path) for path in VIEWS]
    # Streamlit shows the default page at the root of the address only, so that its name needs a page of its own.
    st.navigation([*pages, _page(view, DEFAULT, DEFAULT, visibility="hidden")], position="top").run()


def _page(view: View | None, path: str, url_path: str, **settings: Any) -> st.Page:
    title, icon, content = VIEWS[path]
    return st.Page(partial(_show, content, view), title=title, icon=icon, url_path=url_path, **settings)


def _show(content: Callable[[View], None], view: View | None) -> None:
    if view is not None:
        content(view)


def _chosen(settings: Settings) -> View | None:
    """The selected use case; None, after a message, while the API has never answered."""
    api = Api(settings.api_url, st.session_state.get("key", ""))
    try:
        st.session_state.described = api.read(api.client.described)
    except ServiceError as error:
        if "described" not in st.session_state:
            st.title("dosel")
            errors.show(error, "page")
            return None
        # The API has stopped: the form keeps its values, and the views show the error.
    use_case = _pick(st.session_state.described["use_cases"])
    if st.session_state.described["needs_key"]:
        st.text_input(
            "Key",
            key="key",
            type="password",
            placeholder="this installation asks for a key",
            help="The page sends the key with each request and forgets it when it is closed.",
        )
    st.title(use_case["title"])
    return View(api, use_case, settings)


def _pick(use_cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The use case that the address names, or else the default."""
    by_name = {use_case["name"]: use_case for use_case in use_cases}
    asked = st.query_params.get("use_case", "")
    default = next((u["name"] for u in use_cases if u["default"]), use_cases[0]["name"])
    if asked and asked not in by_name:
        # Streamlit removes what the widget does not have from the address, and the next run no longer sees it.
        st.session_state.unknown = asked
    if unknown := st.session_state.get("unknown"):
        st.warning(
            f"**There is no use case {plain(unknown[:SHOWN])}.** This page shows {plain(default)}. There are: "
            f"{plain(', '.join(by_name))}.",
            icon=":material/search_off:",
        )
    if len(by_name) == 1:
        return by_name[default]
    picked = st.segmented_control(
        "Use case",
        list(by_name),
        default=default,
        required=True,
        key="use_case",
        bind="query-params",
        on_change=partial(st.session_state.pop, "unknown", None),
        label_visibility="collapsed",
    )
    return by_name[picked or default]
