"""Preprocessed training rows and held-out rows, written to the lake as Parquet and described in an MLflow run.

They are for people, who can see what the models saw. Training does not read them: preprocessing belongs to the model's
pipeline. Rows that were processed before are not processed again.
"""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

import dosel
from dosel.model import tags
from dosel.model.fingerprint import code_version
from dosel.rows import frames, hashing, splits
from dosel.sources.lake import PROCESSED, Lake
from dosel.training import tracking
from dosel.training.preprocessing import ONE_HOT, pipeline
from dosel.training.train import TrainingData
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def process(
    use_case: UseCase,
    data: TrainingData,
    counts: Mapping[str, int],
    source: Mapping[str, Any],
    lake: Lake,
    tracking_uri: str,
) -> str:
    """Split and preprocess the clean rows, write both parts to the lake, and log a description.

    Args:
        counts: numbers of received, clean, refused and duplicate rows.
        source: parameters of the run that describe where the rows came from.

    Returns:
        The id of the finished run.
    """
    mlflow.set_tracking_uri(tracking_uri)
    client = MlflowClient(tracking_uri)
    experiment_id = tracking.open_experiment(client, use_case)
    key = _key(use_case, data, counts)
    wanted = f"tags.`{tags.PROCESSED_KEY}` = '{key}' AND attributes.status = 'FINISHED'"
    done = client.search_runs([experiment_id], wanted, max_results=1)
    if done:
        log.info("run %s already processed these rows", done[0].info.run_id)
        return str(done[0].info.run_id)
    held_out = hashing.is_held_out(use_case, data.table)
    features = frames.canonical(use_case, data.table)
    classes = data.table[use_case.target.name].to_numpy(dtype=np.int64)
    steps = pipeline(use_case, "passthrough")[:-1].fit(features[~held_out], classes[~held_out])
    with mlflow.start_run(run_name=f"preprocessed · {tracking.dated(len(data.table))}") as run:
        tracking.tag(
            client,
            run.info.run_id,
            {
                tags.PROCESSED_KEY: key,
                tags.RUN_KIND: tags.PREPROCESSING,
                tags.USE_CASE: use_case.name,
                tags.CODE_VERSION: code_version(),
                tags.DATA_DIGEST: data.digest,
                tags.BATCH_IDS: list(data.batch_ids),
                tags.SPLIT_VERSION: splits.split_version(use_case),
            },
        )
        mlflow.log_params({**source, **_params(use_case)})
        figures: dict[str, float] = {f"rows_{name}": count for name, count in counts.items()}
        digests = {}
        for part, chosen in (("train", ~held_out), ("test", held_out)):
            made = pd.DataFrame(steps.transform(features[chosen]), columns=_names(use_case, steps))
            made[use_case.target.name] = classes[chosen]
            digests[part] = _write(lake, use_case, data.digest, part, made)
            figures[f"rows_{part}"] = len(made)
            figures |= {f"{part}_missing_before_{n}": int(c) for n, c in _missing(use_case, features[chosen]).items()}
            figures |= {f"{part}_missing_after_{name}": int(made[name].isna().sum()) for name in made}
            figures |= {f"{part}_mean_{name}": float(made[name].mean()) for name in made}
            figures |= {f"{part}_std_{name}": float(made[name].std(ddof=0)) for name in made}
        mlflow.log_metrics(figures)
        tracking.tag(client, run.info.run_id, {tags.PROCESSED: digests})
        mlflow.log_dict(_statistics(use_case, features, classes), "statistics.json")
        mlflow.log_figure(_class_figure(use_case, classes, held_out), "figures/classes.png")
        mlflow.log_figure(_missing_figure(use_case, features), "figures/missing.png")
        mlflow.log_figure(_number_figure(use_case, features, classes), "figures/numbers.png")
    return str(run.info.run_id)


def _key(use_case: UseCase, data: TrainingData, counts: Mapping[str, int]) -> str:
    parts = (
        dosel.__version__,
        use_case.name,
        data.digest,
        sorted(counts.items()),
        splits.split_version(use_case),
        use_case.preprocessing,
        [(number.name, number.scaling) for number in use_case.numbers],
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _write(lake: Lake, use_case: UseCase, digest: str, part: str, made: pd.DataFrame) -> dict[str, str]:
    """Write a part to the lake, under a key that is unique to these rows."""
    content = io.BytesIO()
    made.to_parquet(content, index=False)
    key = f"{use_case.name}/{digest[:16]}/{part}.parquet"
    lake.put(PROCESSED, key, content.getvalue())
    found = {"address": lake.address(PROCESSED, key), "sha256": hashlib.sha256(content.getvalue()).hexdigest()}
    log.info("%s %s rows are at %s (SHA-256 %s)", f"{len(made):,}", part, found["address"], found["sha256"])
    return found


def _params(use_case: UseCase) -> dict[str, Any]:
    params: dict[str, Any] = {
        "imputer": use_case.preprocessing.imputer,
        "encoder": ONE_HOT,
        "missing_tokens": json.dumps(use_case.missing),
        "test_share": use_case.split.test_share,
        "split": splits.split_version(use_case),
        "classes": json.dumps(dict(use_case.target.labels)),
    }
    for scaling in ("standard", "minmax"):
        params[f"scaled_{scaling}"] = ", ".join(n.name for n in use_case.numbers if n.scaling == scaling)
    if use_case.target.bins:
        params["class_cuts"] = json.dumps(use_case.target.bins.at)
    return params


def _names(use_case: UseCase, steps: Any) -> list[str]:
    """Column names after preprocessing: numbers keep theirs, one-hot columns add the value."""
    fitted = steps[0]
    scaled = [n.name for by in ("minmax", "standard") for n in use_case.numbers if n.scaling == by]
    encoded = [f"{c.name}_{value}" for c in use_case.categories for value in c.values]
    known = {ONE_HOT: encoded, "numbers": scaled}
    names = [""] * max(place.stop for place in fitted.output_indices_.values())
    for name, _, columns in fitted.transformers_:
        place = fitted.output_indices_[name]
        names[place] = known.get(name) or list(columns)[: place.stop - place.start]
    return names


def _missing(use_case: UseCase, features: pd.DataFrame) -> dict[str, int]:
    """Number of missing values by feature."""
    gone = {n.name: int(features[n.name].isna().sum()) for n in use_case.numbers}
    return gone | {c.name: int((features[c.name] == "").sum()) for c in use_case.categories}


def _statistics(use_case: UseCase, features: pd.DataFrame, classes: Any) -> dict[str, Any]:
    """Statistics of each feature before preprocessing, and the number of rows by class."""
    numbers = {
        n.name: {name: float(value) for name, value in features[n.name].describe().items()} for n in use_case.numbers
    }
    words = {
        c.name: {str(value): int(count) for value, count in features[c.name].value_counts().items()}
        for c in use_case.categories
    }
    found = {label: int((classes == code).sum()) for code, label in use_case.target.labels.items()}
    return {"numbers": numbers, "categories": words, "classes": found}


def _class_figure(use_case: UseCase, classes: Any, held_out: Any) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    labels = list(use_case.target.labels.values())
    for part, chosen, side in (("train", ~held_out, -0.2), ("test", held_out, 0.2)):
        counts = [int((classes[chosen] == code).sum()) for code in use_case.target.labels]
        axes.bar(np.arange(len(labels)) + side, counts, 0.4, label=part)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel("Rows")
    axes.set_title(use_case.target.title)
    axes.legend()
    return figure


def _missing_figure(use_case: UseCase, features: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    gone = _missing(use_case, features)
    figure = Figure(figsize=(7, 0.3 * len(gone) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(gone), [count / max(len(features), 1) for count in gone.values()])
    axes.invert_yaxis()
    axes.set_xlabel("Share of rows without a value")
    return figure


def _number_figure(use_case: UseCase, features: pd.DataFrame, classes: Any) -> "Figure":
    """Draw each number's distribution by class, before preprocessing."""
    from matplotlib.figure import Figure

    across = 3
    down = -(-len(use_case.numbers) // across)
    figure = Figure(figsize=(4 * across, 2.6 * down), layout="constrained")
    for axes, number in zip(figure.subplots(down, across, squeeze=False).flat, use_case.numbers, strict=False):
        values = features[number.name].to_numpy()
        parts = [values[(classes == code) & ~np.isnan(values)] for code in use_case.target.labels]
        axes.hist(parts, bins=20, stacked=True, label=list(use_case.target.labels.values()))
        axes.set_title(number.title)
    figure.axes[0].legend()
    return figure
