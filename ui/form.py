"""The form: a field a feature, with its bounds, choices, unit and help as the use case declares them."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

COLUMNS = 2
ASK_AGAIN = ":material/front_hand:"


@dataclass(frozen=True)
class Sent:
    """A filled-in form: every field has a value, or may do without. `model` is the one to ask."""

    row: dict[str, Any]
    model: str


def show(use_case: dict[str, Any]) -> Sent | None:
    """Draws the form; gives what was sent, in the run that follows the click."""
    st.subheader("A row to ask about")
    st.button("Fill in a real example", on_click=_fill_in, args=(use_case,), icon=":material/edit_note:")
    models = [use_case["model_name"], *use_case["families"]]
    with st.form(f"row-{use_case['name']}", border=False):
        model = st.selectbox(
            "Model",
            models,
            format_func=lambda name: name if name in use_case["families"] else f"{name} (Production)",
            help="What is in Production is preset; or the newest version of a family.",
        )
        values = {}
        features = use_case["features"]
        # Row by row, so that on a narrow screen, where columns stack, the fields keep their order.
        for start in range(0, len(features), COLUMNS):
            for column, feature in zip(st.columns(COLUMNS), features[start : start + COLUMNS], strict=False):
                with column:
                    values[feature["name"]] = _field(use_case, feature)
        clicked = st.form_submit_button("Predict", type="primary", width="stretch")
    if not clicked:
        return None
    wrong = [said for feature in use_case["features"] if (said := _wrong(feature, values[feature["name"]]))]
    missing = [f["title"] for f in use_case["features"] if values[f["name"]] is None and not f["optional"]]
    if missing:
        wrong.append(f"Still empty: {', '.join(missing)}.")
    if wrong:
        st.warning("**The model was not asked.**\n\n" + "\n".join(f"- {said}" for said in wrong), icon=ASK_AGAIN)
        return None
    return Sent({f["name"]: _as_sent(f, values[f["name"]]) for f in use_case["features"]}, model)


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
    # Without the widget's own bounds, at which it turns red, says nothing and keeps what it had: `_wrong` has words.
    return st.number_input(
        feature["title"] + _unit(feature),
        value=None,
        step=1.0 if feature["whole"] else None,
        format="%g" if feature["whole"] else None,
        key=key,
        placeholder=f"{feature['low']:g} to {feature['high']:g}" + (", or unknown" if feature["optional"] else ""),
        help=feature["help"],
    )


def _wrong(feature: dict[str, Any], value: Any) -> str:
    """What is wrong with a number, in words; "" if nothing is."""
    if feature["kind"] == "category" or value is None:
        return ""
    whole, low, high = feature["whole"], feature["low"], feature["high"]
    if low <= value <= high and not (whole and value % 1):
        return ""
    kind = "a whole number" if whole else "a number"
    return f"**{feature['title']}**: {kind} from {low:g} to {high:g}{_unit(feature)} expected, got {value:,.10g}."


def _unit(feature: dict[str, Any]) -> str:
    return f" ({feature['unit']})" if feature["unit"] else ""


def _as_sent(feature: dict[str, Any], value: Any) -> Any:
    return int(value) if value is not None and feature["kind"] == "number" and feature["whole"] else value


def _fill_in(use_case: dict[str, Any]) -> None:
    for feature in use_case["features"]:
        example = use_case["example"][feature["name"]]
        st.session_state[_key(use_case, feature)] = example if feature["kind"] == "category" else float(example)


def _key(use_case: dict[str, Any], feature: dict[str, Any]) -> str:
    return f"{use_case['name']}.{feature['name']}"
