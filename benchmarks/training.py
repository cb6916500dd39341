"""Measures a search with full tracking beside one without, and on growing numbers of rows.

    make bench-training          CSV=rows.csv for real rows; SIZES="7000 581012" for other sizes, SIZES= for none

Both sides search the same 27 candidates on the same rows, with all cores, from rows in memory. The bare one is
scikit-learn's GridSearchCV over a pipeline as usually written: sparse one-hot, preprocessing in every fit. Its encoder
knows the declared categories, since other columns would make other forests. dosel's side ends when the version is
registered on its own MLflow server. Each side runs once before, on few rows, so that imports and starting worker
processes do not count.
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.installation import Mlflow, in_a_process, peak_mb, say
from dosel.rows import frames, hashing
from dosel.settings import Settings
from dosel.training.fan_out import Threads
from dosel.training.preprocessing import CLASSIFIER
from dosel.training.train import TrainingData, train
from dosel.usecases import Feature, Range
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words, coded
from external.generator import generate
from external.table import read_csv

ROWS = 7_000
SIZES = (7_000, 35_000, 116_203, 581_012)
ROUNDS = 3
WARM_UP_ROWS = 400
SEED = 42
FOREST = next(family for family in COVERTYPE.families if family.name == "random_forest")
"""The one family that both sides search, whichever others the use case has."""

USE_CASE = replace(COVERTYPE, families=(FOREST,))


@dataclass(frozen=True)
class Outcome:
    """Duration and result of one search."""

    seconds: float
    params: dict[str, int]
    accuracy: float


def main() -> None:
    asked = arguments()
    table = read(asked.csv) if asked.csv else generated(ROWS)
    bares, ours = [], []
    with mlflow_server() as uri:
        for side in (bare, lambda data: tracked(data, uri, "warm-up")):
            side(prepared(table.head(WARM_UP_ROWS)))
        for number in range(asked.rounds):
            bares.append(bare(prepared(table)))
            ours.append(tracked(prepared(table), uri, f"round {number}"))
            say(f"round {number + 1}: bare {bares[-1].seconds:.1f} s, ours {ours[-1].seconds:.1f} s")
    result = compared(bares, ours, len(table), asked.csv.name if asked.csv else "generated")
    if asked.sizes:
        say("\n| rows | seconds | CPU seconds | peak memory, MB | held-out accuracy |\n|---:|---:|---:|---:|---:|")
    for size in asked.sizes:
        figures = in_a_process(cost, size)
        say("| {rows:,} | {seconds:.1f} | {cpu_seconds:.0f} | {peak_mb:.0f} | {accuracy:.4f} |".format(**figures))
        result[f"seconds_{size}"] = figures["seconds"]
        result[f"peak_mb_{size}"] = figures["peak_mb"]
    say(f"RESULT {json.dumps(result)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="rows of covertype; generated ones otherwise")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    return parser.parse_args()


def compared(bares: Sequence[Outcome], ours: Sequence[Outcome], count: int, source: str) -> dict[str, Any]:
    """Print the comparison and return its figures; the ratio is that of the medians."""
    sides = {"bare GridSearchCV": bares, "dosel, tracked and registered": ours}
    seconds = {name: median(o.seconds for o in outcomes) for name, outcomes in sides.items()}
    base = seconds["bare GridSearchCV"]
    say(f"{count:,} rows ({source}), 27 candidates, {Threads(-1).cores()} cores; medians of {len(ours)} rounds\n")
    say("| search | seconds | of bare | best | held-out accuracy |\n|---|---:|---:|---|---:|")
    for name, outcomes in sides.items():
        last = outcomes[-1]
        best = ", ".join(f"{k}={v}" for k, v in sorted(last.params.items()))
        say(f"| {name} | {seconds[name]:.1f} | {seconds[name] / base:.2f} | {best} | {last.accuracy:.4f} |")
    return {
        "vs_bare_gridsearch": round(seconds["dosel, tracked and registered"] / base, 3),
        "same_best_params": len({tuple(sorted(o.params.items())) for o in (*bares, *ours)}) == 1,
        "same_accuracy": len({o.accuracy for o in (*bares, *ours)}) == 1,
        "accuracy": ours[-1].accuracy,
    }


def bare(data: TrainingData) -> Outcome:
    """scikit-learn's own search in processes, its default."""
    from sklearn import pipeline
    from sklearn.compose import ColumnTransformer
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

    started = perf_counter()
    held_out = hashing.is_held_out(COVERTYPE, data.table)
    features, classes = frames.canonical(COVERTYPE, data.table), data.table[COVERTYPE.target.name].to_numpy()
    categories = [list(category.values) for category in COVERTYPE.categories]
    steps = [
        ("one_hot", OneHotEncoder(categories=categories, handle_unknown="ignore"), names(COVERTYPE.categories)),
        ("minmax", MinMaxScaler(), names(n for n in COVERTYPE.numbers if n.scaling == "minmax")),
        ("standard", StandardScaler(), names(n for n in COVERTYPE.numbers if n.scaling == "standard")),
    ]
    search = GridSearchCV(
        pipeline.Pipeline([("preprocess", ColumnTransformer(steps)), (CLASSIFIER, FOREST.build(SEED))]),
        {f"{CLASSIFIER}__{n}": list(v) for n, v in FOREST.space.items() if not isinstance(v, Range)},
        scoring=COVERTYPE.gate.metric,
        cv=COVERTYPE.folds,
        n_jobs=-1,
    )
    search.fit(features[~held_out], classes[~held_out])
    accuracy = float(np.mean(search.predict(features[held_out]) == classes[held_out]))
    params = {name.removeprefix(f"{CLASSIFIER}__"): int(value) for name, value in search.best_params_.items()}
    return Outcome(perf_counter() - started, params, accuracy)


def names(features: Iterable[Feature]) -> list[str]:
    return [feature.name for feature in features]


def tracked(data: TrainingData, uri: str, experiment: str) -> Outcome:
    """dosel's training as the DAG's tasks run it, up to the registered version."""
    from mlflow import MlflowClient

    from dosel.pipeline import Pipeline

    use_case = replace(USE_CASE, experiment=experiment)
    pipeline = Pipeline(use_case, Settings(tracking_uri=uri, warehouse_url="sqlite://"))
    started = perf_counter()
    number = pipeline.register(train(use_case, data, uri, pipeline.registry.ledger, SEED, engine=Threads(-1)))
    seconds = perf_counter() - started
    run = MlflowClient(uri).get_run(pipeline.registry.version(use_case.model_name, number).run_id)
    params = {name: int(run.data.params[f"best_{CLASSIFIER}__{name}"]) for name in FOREST.space}
    return Outcome(seconds, params, run.data.metrics["holdout_accuracy"])


def cost(count: int) -> dict[str, float]:
    """A whole training on generated rows in this process: duration and peak memory."""
    table = generated(count)
    with mlflow_server() as uri:
        tracked(prepared(table.head(WARM_UP_ROWS)), uri, "warm-up")
        cpu_started = process_time()
        outcome = tracked(prepared(table), uri, "cost")
        cpu_seconds = process_time() - cpu_started
    figures = {"rows": count, "seconds": outcome.seconds, "cpu_seconds": cpu_seconds}
    return {**figures, "peak_mb": round(peak_mb()), "accuracy": outcome.accuracy}


@contextmanager
def mlflow_server() -> Iterator[str]:
    """An MLflow server over HTTP, in a temporary folder."""
    with TemporaryDirectory(prefix="dosel-benchmark-") as name:
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        server = Mlflow(Path(name))
        with server.running():
            yield server.url


def read(csv: Path) -> pd.DataFrame:
    return accepted(read_csv(csv, "uci"))


def generated(count: int) -> pd.DataFrame:
    return accepted(generate(count, seed=1))


def accepted(found: pd.DataFrame) -> pd.DataFrame:
    """Coded rows as the data store returns them: canonical values, without duplicates."""
    words = pd.DataFrame(as_words(coded(found.to_numpy()), first_class=1), columns=list(COVERTYPE.columns))
    table = frames.canonical(COVERTYPE, words)
    table[COVERTYPE.target.name] = words[COVERTYPE.target.name].astype("int64")
    return table.drop_duplicates(ignore_index=True)


def prepared(table: pd.DataFrame) -> TrainingData:
    return TrainingData(table, hashing.row_keys(COVERTYPE, table), (1,))


if __name__ == "__main__":
    main()
