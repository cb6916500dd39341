"""The version in Production: its number, metrics and date."""

from typing import Any

import streamlit as st

from dosel.actors import readable
from dosel.errors import ServiceError
from ui import errors
from ui.history import KINDS
from ui.text import moment, plain, sentence
from ui.view import View

SCORES = {
    "holdout_accuracy": ("Accuracy", "Share of held-out rows that the model predicts correctly."),
    "holdout_balanced_accuracy": ("Balanced accuracy", "Mean recall of the classes: every class has the same weight."),
    "holdout_f1_macro": ("F1, macro", "Mean F1 score of the classes: every class has the same weight."),
}


def show(view: View) -> bool:
    """Show the version, or the error; return whether the version could be shown."""
    try:
        info = view.api.read(view.api.client.model_info, view.name)
    except ServiceError as error:
        errors.show(error, "production")
        return False
    version = info["production"]
    if info["loaded"]["stale"]:
        _warn(view, info["loaded"])
    with st.container(border=True):
        st.markdown(
            f"**In Production** &nbsp; `{info['name']}` &nbsp; **version {version['version']}** &nbsp; {_since(info)}"
        )
        known = {name: words for name, words in SCORES.items() if name in version["metrics"]}
        with st.container(horizontal=True, gap="large"):
            for name, (title, help_) in known.items():
                st.metric(title, f"{version['metrics'][name]:.1%}", help=help_, width="content")
            rows = version["lineage"]["rows_train"]
            st.metric("Trained on", f"{rows:,} rows" if rows else "unknown", width="content")
        _say_cause(view, version["version"])
        st.markdown(
            f"[Its run in MLflow]({view.run_address(version)}) · "
            f"[Trainings in Airflow]({view.dag_address('train')}) · [Predictions over HTTP]({view.call_address()})"
        )
    return True


def _say_cause(view: View, number: int) -> None:
    """Say why the version is in Production and who put it there, by the ledger's last entry.

    The gate's reason alone would be wrong after a rollback.
    """
    try:
        entries = view.api.read(view.api.client.history, view.model)["entries"]
    except ServiceError:
        return
    if entries and entries[-1]["to_version"] == number:
        entry = entries[-1]
        # A reason may begin with the same words, as that of `dosel rollback` does.
        _, words = KINDS[entry["kind"]]
        reason = entry["reason"] if entry["reason"].startswith(words) else f"{words}: {entry['reason']}"
        st.markdown(f"{plain(sentence(reason))} By {plain(readable(entry['actor']))}.")


def _since(info: dict[str, Any]) -> str:
    if not info.get("since"):
        return ""
    return f"since {moment(info['since'])}"


def _warn(view: View, loaded: dict[str, Any]) -> None:
    """Say that the API could not confirm the version that it has loaded, and why."""
    try:
        reason = view.api.read(view.api.client.readiness)["use_cases"][view.name]["waiting_for"]
    except ServiceError:
        reason = None
    waits = f" {plain(sentence(f'the API waits for {reason}'))}" if reason else ""
    st.warning(
        f"**Not confirmed.** Version {loaded['version']}, loaded on {moment(loaded['loaded_at'])}, keeps answering; it "
        f"may no longer be the one in Production.{waits}",
        icon=":material/sync_problem:",
    )
