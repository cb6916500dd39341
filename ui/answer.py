"""The answer: its label, the probabilities, and the model that answered."""

from dataclasses import dataclass, field
from time import time_ns
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dosel.client import ApiProblem
from dosel.errors import ServiceError
from ui import errors
from ui.form import Typed
from ui.kept import kept
from ui.view import View

UNCONFIRMED = "The API could not confirm that this version is still the current one."

CHOSEN, OTHER = "#4a9a5c", "#8fa596"

SCROLL = """
<script>
  // On a narrow screen the answer is below the form. While the page draws the rest, the answer may move again.
  const show = () => {
    const answer = document.querySelector(".st-key-answer");
    const top = answer ? answer.getBoundingClientRect().top : 0;
    if (top < 0 || top > window.innerHeight / 2) answer.scrollIntoView();
  };
  const timer = setInterval(show, 200);
  const stop = () => clearInterval(timer);
  setTimeout(stop, 2000);
  for (const moved of ["wheel", "touchstart", "keydown"]) window.addEventListener(moved, stop, {once: true});
  show();  // %d
</script>
"""


@dataclass
class Asked:
    """A row that was sent, with what the API answered: an answer or a problem.

    `explanation` is what the API said to the question why, once it was asked: an explanation or an error. `what_if` has
    the answers along the values of a field, by field.
    """

    row: dict[str, Any]
    model: str
    answer: dict[str, Any] | None = None
    problem: ServiceError | None = None
    explanation: dict[str, Any] | ServiceError | None = None
    what_if: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def is_about(self, typed: Typed) -> bool:
        return self.row == typed.row and self.model == typed.model


def show(view: View, typed: Typed, available: bool) -> tuple[Asked, DeltaGenerator] | None:
    """Send the row if Predict was clicked, and show the last answer.

    Returns:
        The answer and a place above it; None if there is no answer.
    """
    answers: dict[str, Asked] = kept("answers")
    with st.container(key="answer"):
        st.subheader("The answer")
        if typed.sent and not available:
            answers.pop(view.name, None)
            st.caption("No answer, for the reason above. The form keeps its values.")
            return None
        if typed.sent:
            answers[view.name] = _ask(view, typed)
        asked, above = answers.get(view.name), st.empty()
        if asked is None:
            st.caption("Fill in the form and press Predict.")
        elif asked.problem is not None:
            _show_problem(view, typed, asked)
        else:
            _show_answer(view, typed, asked)
    if typed.sent:
        # With the time, since the browser runs an unchanged script only once.
        st.html(SCROLL % time_ns(), unsafe_allow_javascript=True)
    return (asked, above) if asked is not None and asked.answer is not None else None


def _ask(view: View, typed: Typed) -> Asked:
    try:
        with st.spinner("predicting"):
            answer = view.api.client.predict(view.name, typed.row, model=typed.model)
    except ServiceError as error:
        return Asked(typed.row, typed.model, problem=error)
    return Asked(typed.row, typed.model, answer)


def _show_problem(view: View, typed: Typed, asked: Asked) -> None:
    problem = asked.problem
    if isinstance(problem, ApiProblem) and problem.errors:
        st.warning("**No prediction**, because of the values marked in the form.", icon=":material/front_hand:")
        wrong = [e for e in problem.errors if asked.row.get(e["field"]) == typed.row.get(e["field"])]
        for other in typed.show_errors(wrong):
            st.markdown(other["message"])
    elif problem is not None and errors.show(problem, "answer"):
        kept("answers")[view.name] = _ask(view, typed)
        st.rerun()


def _show_answer(view: View, typed: Typed, asked: Asked) -> None:
    answer = asked.answer
    assert answer is not None
    is_old = not asked.is_about(typed)
    if is_old:
        st.info("The form has changed since. Press Predict for a new answer.", icon=":material/history:")
    with st.container(key="old-answer" if is_old else "new-answer"):
        model, label = answer["model"], answer["label"]
        st.metric(view.use_case["target"]["title"], label, help=f"Code {answer['prediction']}")
        st.caption(f"Probability {answer['probabilities'][label]:.0%}, by {model['name']} version {model['version']}")
        if answer["stale"]:
            st.markdown(f":material/sync_problem: {UNCONFIRMED}")
        st.altair_chart(_chart(answer["probabilities"], label), width="stretch")


def _chart(probabilities: dict[str, float], label: str) -> alt.Chart:
    data = pd.DataFrame({"class": list(probabilities), "probability": list(probabilities.values())})
    bars = (
        alt.Chart(data)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X("probability:Q", axis=alt.Axis(format="%", title="Probability"), scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("class:N", sort="-x", title=None, axis=alt.Axis(labelLimit=160, labelOverlap=False)),
            color=alt.condition(alt.datum["class"] == label, alt.value(CHOSEN), alt.value(OTHER)),
            tooltip=[alt.Tooltip("class:N", title="Class"), alt.Tooltip("probability:Q", format=".1%")],
        )
    )
    chart: alt.Chart = bars.properties(height=32 * len(data) + 40)
    return chart
