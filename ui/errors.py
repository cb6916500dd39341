"""What went wrong, in plain words, and a way to try again."""

import streamlit as st

from dosel.client import ApiProblem
from dosel.errors import ServiceError


def show(error: ServiceError, place: str) -> None:
    """Says what the API's refusal or silence means to the person at the page; `place` is unique on it."""
    match error:
        case ApiProblem(status=503):
            st.info(
                f"**Not ready yet.** {error.detail[:1].upper()}{error.detail[1:]}.", icon=":material/hourglass_top:"
            )
        case ApiProblem(status=422) if error.errors:
            st.warning("**The model was not asked**, because of these values:", icon=":material/front_hand:")
            for field in error.errors:
                st.markdown(f"- **{field['field']}**: {field['expected']} expected, got `{field['got']}`")
            return
        case ApiProblem():
            st.error(f"**The prediction API refused.** {error.detail}", icon=":material/block:")
        case _:
            st.error(
                "**The prediction API cannot be reached.** If it was just started, give it a few seconds; "
                "`make status` says how it is, `make up` starts it.",
                icon=":material/power_off:",
            )
    # Any click runs the page anew, which is all that trying again takes.
    st.button("Try again", key=f"again-{place}")
