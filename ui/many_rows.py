"""The view of many rows: a CSV is dropped, and comes back with a prediction and probabilities for each row."""

import csv
import io
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import Any

import pandas as pd
import streamlit as st

from dosel.client import ApiProblem
from dosel.errors import DoselError, ServiceError
from dosel.rows.answered import beside
from ui import errors
from ui.answer import UNCONFIRMED
from ui.csv_files import SHOWN, Answers, Column, Upload
from ui.text import COUNTED, plain
from ui.view import View

WRONG = "background-color: #d9822b; color: #000000"
"""The style of an invalid cell, readable in both themes."""

BULK_SHARE = 0.5
"""The share of the progress bar that the sending takes; receiving takes the rest."""


def show(view: View) -> None:
    """Show the view; the answers stay until another file is sent."""
    st.subheader("Many rows")
    st.markdown(
        "Drop a CSV with a header; each row comes back with a prediction and probabilities. Values may be separated by "
        "`,` or `;`; after `;`, numbers may have a decimal comma. UTF-16 and other columns are fine."
    )
    with st.expander("The columns, in any order"):
        for feature in view.use_case["features"]:
            st.markdown(f"- `{feature['name']}`: {plain(feature['expected'])}")
    st.download_button(
        "An example",
        _example(view.use_case),
        f"{view.name}.csv",
        "text/csv",
        icon=":material/download:",
        type="tertiary",
    )
    dropped = st.file_uploader("CSV", type=["csv", "txt"], key=f"{view.name}-rows", label_visibility="collapsed")
    kept: dict[str, Any] = st.session_state.setdefault("many_rows", {})
    if st.button("Predict all rows", type="primary", disabled=dropped is None) and dropped is not None:
        kept[view.name] = _predict(view, dropped.name, dropped.getvalue())
    match kept.get(view.name):
        case Answers() as answers:
            _show_answers(view, answers)
        case (Upload() as upload, ApiProblem() as problem) if any(error.get("row") for error in problem.errors):
            _show_refused(view, upload, problem)
        case (_, ServiceError() as error):
            if errors.show(error, "many-rows"):
                del kept[view.name]
                st.rerun()
        case (_, DoselError() as error):
            st.error(f"**The file cannot be read.** {plain(str(error))}", icon=":material/block:")


def _predict(view: View, name: str, content: bytes) -> Answers | tuple[Upload | None, DoselError]:
    """The answers, or what was refused and why."""
    upload = None
    columns = [Column(feature["name"], tuple(feature["aliases"])) for feature in view.use_case["features"]]
    bar = st.progress(0.0, "sending")
    try:
        upload = Upload.of(name, content)
        header = upload.header(columns)
        sent = _counted(upload.pieces(), bar, "sending", upload.size, 0.0)
        with view.api.client.predict_csv(view.name, sent, upload.size) as answer, TemporaryFile() as spool:
            spool.writelines(_counted(answer.pieces, bar, "receiving", answer.size, BULK_SHARE))
            return Answers.of(beside(upload.path, header, spool), answer.model, answer.version, answer.stale)
    except DoselError as error:
        return upload, error
    finally:
        bar.empty()


def _counted(pieces: Iterable[bytes], bar: Any, what: str, size: int, start: float) -> Iterator[bytes]:
    """The pieces, while the bar shows how many of their bytes have passed."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        text = f"{what}: {done / 1e6:,.1f} of {size / 1e6:,.1f} MB" if done < size else "the API predicts"
        bar.progress(min(1.0, start + BULK_SHARE * done / max(size, 1)), text)


def _show_answers(view: View, answers: Answers) -> None:
    st.success(f"{answers.rows:,} rows answered by {answers.model} version {answers.version}.", icon=":material/check:")
    if answers.stale:
        st.markdown(f":material/sync_problem: {UNCONFIRMED}")
    with st.container(horizontal=True, gap="large"):
        for label, count in sorted(answers.labels.items(), key=lambda pair: -pair[1]):
            st.metric(label, f"{count:,}", width="content")
    st.download_button(
        "Rows with predictions and probabilities",
        answers.content,
        f"{view.name}-predictions.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
        type="primary",
    )
    if answers.rows > SHOWN:
        st.caption(f"The first {SHOWN} rows:")
    first = pd.DataFrame(answers.first, columns=_distinct(answers.names))
    st.dataframe(first, width="stretch", hide_index=True, key=f"answers-{view.name}")


def _show_refused(view: View, upload: Upload, problem: ApiProblem) -> None:
    """The first rows with invalid cells, which are marked."""
    columns = [Column(feature["name"], tuple(feature["aliases"])) for feature in view.use_case["features"]]
    header = upload.header(columns)
    by_row: dict[int, list[dict[str, Any]]] = {}
    for error in problem.errors:
        by_row.setdefault(error["row"], []).append(error)
    values = upload.rows(header, by_row.keys())
    more = ", perhaps more" if len(by_row) >= SHOWN else ""
    st.warning(
        f"**Nothing was predicted**. Invalid rows: {len(by_row):,}{more}. Correct the marked cells and drop the file "
        f"again. {COUNTED}",
        icon=":material/front_hand:",
    )
    table = pd.DataFrame(
        [
            [
                number,
                "; ".join(map(_what, found)),
                *_as_wide(values.get(number, []), len(header.names)),
            ]
            for number, found in by_row.items()
        ],
        columns=["Row", "What is wrong", *_distinct(header.names)],
    )
    marks = pd.DataFrame("", index=table.index, columns=table.columns)
    for place, found in enumerate(by_row.values()):
        for error in found:
            if error["field"] in header.places:
                marks.iloc[place, 2 + header.places[error["field"]]] = WRONG
    st.dataframe(
        table.style.apply(lambda _: marks, axis=None), width="stretch", hide_index=True, key=f"refused-{view.name}"
    )


def _what(error: dict[str, Any]) -> str:
    where = f"{error['field']}: " if error["field"] else ""
    return f"{where}expected {error['expected']}, got {error['got']}"


def _as_wide(values: list[str], width: int) -> list[str]:
    return [*values, *[""] * width][:width]


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, with numbers after those that were there before."""
    found: list[str] = []
    for name in names:
        found.append(name if name not in found else f"{name} ({len(found) + 1})")
    return found


def _example(use_case: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(use_case["example"])
    writer.writerow(use_case["example"].values())
    return text.getvalue()
