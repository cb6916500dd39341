"""Error messages, with a button to try again."""

import streamlit as st

from dosel.client import ApiProblem
from dosel.errors import AnswerTimeout, ServiceError
from ui.text import plain, sentence


def show(error: ServiceError, place: str) -> bool:
    """Show an error of the API; return whether the reader wants to try again. `place` is unique on the page."""
    match error:
        case ApiProblem(status=503):
            # No model yet, a service that is down, or a full queue: the detail says which.
            st.info(
                f"**The prediction API cannot answer this now.** {plain(sentence(error.detail))}",
                icon=":material/cloud_off:",
            )
        case ApiProblem(status=401):
            st.info("**A key is needed.** Enter a valid key at the top of the page.", icon=":material/key:")
        case ApiProblem():
            st.error(f"**The prediction API refused the request.** {plain(error.detail)}", icon=":material/block:")
        case AnswerTimeout():
            st.error(
                "**The prediction API takes too long.** Its machine may be busy. Try again in a moment.",
                icon=":material/hourglass_top:",
            )
        case _:
            st.error(
                "**The prediction API cannot be reached.** If it was just started, wait a few seconds. `make status` "
                "shows its state, `make up` starts it.",
                icon=":material/power_off:",
            )
    # Any click runs the page again.
    return st.button("Try again", key=f"again-{place}")
