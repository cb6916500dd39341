"""The accuracy estimated without labels, beside NannyML's estimate, on the same shifted windows."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.installation import new_environment, say
from dosel.model.held_out import HeldOut
from dosel.monitor.drift import outside
from dosel.monitor.estimate import Estimate, estimate
from dosel.rows import frames
from dosel.rows.columns import Columns, Floats
from dosel.training.preprocessing import CLASSIFIER, pipeline
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

TRAINED, HELD_OUT, LIVE, WINDOW, WINDOWS = 7_000, 2_000, 60_000, 1_000, 5
"""Rows, and the number of windows of each shift."""

PARAMS: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 80, "max_depth": 12},
    "extra_trees": {"n_estimators": 40},
    "lightgbm": {"n_estimators": 100, "num_leaves": 31, "learning_rate": 0.2},
}

NANNYML = "nannyml==0.13.1"

_SCRIPT = """
import json, sys
import numpy as np, pandas as pd
from nannyml import CBPE

found = {}
for family in json.loads(sys.argv[2]):
    data = np.load(f"{sys.argv[1]}/{family}.npz")
    codes = [int(code) for code in data["codes"]]

    def frame(probabilities, truth):
        made = pd.DataFrame(probabilities, columns=[f"p{code}" for code in codes])
        return made.assign(answer=np.array(codes)[probabilities.argmax(1)], truth=truth)

    cbpe = CBPE(
        y_true="truth", y_pred="answer", y_pred_proba={code: f"p{code}" for code in codes},
        problem_type="classification_multiclass", metrics=["accuracy"], chunk_size=int(sys.argv[3]),
    )
    cbpe.fit(frame(data["held_out"], data["held_out_truth"]))
    result = cbpe.estimate(frame(data["windows"], data["windows_truth"])).filter(period="analysis").to_df()
    found[family] = [float(value) for value in result[("accuracy", "value")]]
print("FOUND " + json.dumps(found))
"""

Classes = npt.NDArray[np.int64]


def compare() -> dict[str, object]:
    """Mean absolute errors over all families and windows; NannyML's is None if it cannot be installed."""
    say("| model | windows | refused | mean absolute error | NannyML | actual accuracy in the interval |")
    say("|---|---:|---:|---:|---:|---:|")
    held, live = _rows(HELD_OUT, 1), _rows(LIVE, 2)
    windows = list(_windows(live[0]))
    ours: list[float] = []
    theirs: list[float] = []
    with TemporaryDirectory(prefix="dosel-benchmark-") as name:
        folder = Path(name)
        measured = {family: _measure(family, held, live, windows, folder) for family in PARAMS}
        rival = _nannyml(folder)
    for family, (actual, found) in measured.items():
        errors = [abs(one.accuracy - truth) for one, truth in zip(found, actual, strict=True) if one.accuracy]
        within = [
            one.low <= truth <= one.high for one, truth in zip(found, actual, strict=True) if one.low and one.high
        ]
        others = np.abs(np.array(rival[family]) - actual).tolist() if rival else []
        ours, theirs = ours + errors, theirs + others
        other = f"{np.mean(others):.4f}" if others else "not installed"
        refused = len(found) - len(errors)
        say(f"| {family} | {len(found)} | {refused} | {np.mean(errors):.4f} | {other} | {np.mean(within):.0%} |")
    return {
        "cbpe_mae": round(float(np.mean(ours)), 4),
        "nannyml_mae": round(float(np.mean(theirs)), 4) if theirs else None,
    }


def _measure(
    family: str,
    held: tuple[pd.DataFrame, Classes],
    live: tuple[pd.DataFrame, Classes],
    windows: list[npt.NDArray[np.intp]],
    folder: Path,
) -> tuple[Floats, list[Estimate]]:
    """The actual accuracy and the estimate of each window; also writes the probabilities for NannyML."""
    build = next(declared.build for declared in COVERTYPE.families if declared.name == family)
    features, classes = _rows(TRAINED, 0)
    model = pipeline(COVERTYPE, build(0)).set_params(**{f"{CLASSIFIER}__{k}": v for k, v in PARAMS[family].items()})
    model.fit(features, classes)
    codes = model.classes_.astype(np.int64)
    known = HeldOut(codes, model.predict_proba(held[0]), held[1])
    answers = model.predict_proba(live[0])
    cells = outside(Columns.of(COVERTYPE, features), Columns.of(COVERTYPE, live[0]), is_open=True)
    beyond = np.logical_or.reduce(cells, axis=1)
    right = codes[answers.argmax(axis=1)] == live[1]
    every = np.concatenate(windows)
    np.savez(
        folder / f"{family}.npz",
        codes=codes,
        held_out=known.probabilities,
        held_out_truth=known.truth,
        windows=answers[every],
        windows_truth=live[1][every],
    )
    found = [estimate(known, answers[rows], beyond[rows]) for rows in windows]
    return np.array([right[rows].mean() for rows in windows]), found


def _rows(count: int, seed: int) -> tuple[pd.DataFrame, Classes]:
    words = pd.DataFrame(as_words(generate(count, seed), first_class=1), columns=list(COVERTYPE.columns))
    return frames.canonical(COVERTYPE, words), words[COVERTYPE.target.name].to_numpy().astype(np.int64)


def _windows(live: pd.DataFrame) -> Iterator[npt.NDArray[np.intp]]:
    """Positions of live rows, sampled with weights that depend on features alone, so that there is no concept drift."""
    rng = np.random.default_rng(5)
    elevation, slope = (
        ((live[name] - live[name].mean()) / live[name].std()).to_numpy() for name in ("Elevation", "Slope")
    )
    area = live["Wilderness_Area"].to_numpy()
    none = np.zeros(len(live))
    shifts = (none, 0.7 * elevation, -0.7 * elevation, 1.5 * elevation, 0.8 * slope)
    for logs in (*shifts, 2.0 * (area == "Rawah"), 3.0 * (area == "Cache")):
        weights = np.exp(logs) / np.exp(logs).sum()
        for _ in range(WINDOWS):
            yield rng.choice(len(live), WINDOW, p=weights)


def _nannyml(folder: Path) -> dict[str, list[float]] | None:
    """NannyML's estimate of each window by family, from a new environment; None if it cannot be installed."""
    try:
        # NannyML imports statsmodels without requiring it.
        python = new_environment(folder / "venv", NANNYML, "statsmodels")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        say(f"NannyML cannot be installed: {error}")
        return None
    command = [str(python), "-c", _SCRIPT, str(folder), json.dumps(list(PARAMS)), str(WINDOW)]
    quiet = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True, timeout=900)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    answers: dict[str, list[float]] = json.loads(line.removeprefix("FOUND "))
    return answers
