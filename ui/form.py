"""The form: a field for each feature, with its bounds, choices, unit and help. The API decides what is acceptable."""

from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.kept import kept

COLUMNS = 2


@dataclass(frozen=True)
class Typed:
    """The form as it is filled in now.

    Attributes:
        row: the values by field; None for an empty one.
        model: the model to ask.
        notes: an empty place below each field, for what the API says about it.
        sent: whether Predict was clicked just now.
    """

    row: dict[str, Any]
    model: str
    notes: dict[str, DeltaGenerator]
    sent: bool

    def show_errors(self, errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write each of the API's errors below its field; return those that are about no field."""
        others = []
        for error in errors:
            if note := self.notes.get(error["field"]):
                note.markdown(f":red[expected {error['expected']}, got {error['got']}]")
            else:
                others.append(error)
        return others


def show(use_case: dict[str, Any]) -> Typed:
    """Draw the form and return what it holds."""
    st.subheader("A row to ask about")
    _restore(use_case)
    st.button("Fill in a real example", on_click=_fill_in, args=(use_case,), icon=":material/edit_note:")
    models = [use_case["model_name"], *use_case["families"]]
    model = st.selectbox(
        "Model",
        models,
        format_func=lambda name: name if name in use_case["families"] else f"{name} (Production)",
        help="The version in Production, or the newest version of a family.",
        key=f"{use_case['name']}.model",
    )
    values, notes = {}, {}
    features = use_case["features"]
    # Row by row, so that on a narrow screen, where columns stack, the fields keep their order.
    for start in range(0, len(features), COLUMNS):
        for column, feature in zip(st.columns(COLUMNS), features[start : start + COLUMNS], strict=False):
            with column:
                values[feature["name"]] = _field(use_case, feature)
                notes[feature["name"]] = st.empty()
    sent = st.button("Predict", type="primary", width="stretch")
    kept("forms")[use_case["name"]] = {
        key: st.session_state[key] for key in st.session_state if str(key).startswith(f"{use_case['name']}.")
    }
    return Typed(values, model, notes, sent)


def _restore(use_case: dict[str, Any]) -> None:
    """Put back what was typed before another view or use case was shown, or the page was loaded again."""
    for key, value in kept("forms").get(use_case["name"], {}).items():
        if key not in st.session_state:
            st.session_state[key] = value


def _field(use_case: dict[str, Any], feature: dict[str, Any]) -> Any:
    key = _key(use_case, feature)
    if feature["kind"] == "category":
        titles = {choice["value"]: choice["title"] for choice in feature["choices"]}
        return st.selectbox(
            feature["title"],
            list(titles),
            index=None,
            key=key,
            placeholder="Unknown" if feature["optional"] else "Choose",
            format_func=lambda value: titles[value],
            help=feature["help"],
        )
    # Without the widget's own bounds: outside them it silently keeps the previous value.
    value = st.number_input(
        feature["title"] + _unit(feature),
        value=None,
        step=1.0 if feature["whole"] else None,
        format="%g" if feature["whole"] else None,
        key=key,
        placeholder=f"{feature['low']:g} to {feature['high']:g}" + (", or unknown" if feature["optional"] else ""),
        help=feature["help"],
    )
    return int(value) if value is not None and value.is_integer() else value


def _unit(feature: dict[str, Any]) -> str:
    return f" ({feature['unit']})" if feature["unit"] else ""


def _fill_in(use_case: dict[str, Any]) -> None:
    for feature in use_case["features"]:
        example = use_case["example"][feature["name"]]
        st.session_state[_key(use_case, feature)] = example if feature["kind"] == "category" else float(example)


def _key(use_case: dict[str, Any], feature: dict[str, Any]) -> str:
    return f"{use_case['name']}.{feature['name']}"
