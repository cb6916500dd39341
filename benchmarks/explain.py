"""Measures explanations: neighbours by number of training rows, contributions by model.

    make bench-explain           CSV=… for rows of covertype instead of generated ones

The functions run in this process, without HTTP. CPU is the time of all threads, which depends less on other load.
Models are trained on the training part of the given rows; the reference rows of larger sizes are generated. Queries are
rows that the models have not seen.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import psutil
from lightgbm import LGBMClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.installation import say
from benchmarks.training import generated, read
from dosel.explain.contributions import Contributor
from dosel.explain.space import Space
from dosel.model import reference
from dosel.model.predictor import Predictor
from dosel.rows import frames, hashing
from dosel.settings import Settings
from dosel.training.preprocessing import pipeline
from dosel.usecases.covertype import COVERTYPE

ROWS = 7_000
SIZES = (4_900, 81_342, 406_708)
"""Training rows: of 7,000 rows, of the 116,203 that a start generates, and of all 581,012 that are published."""

QUERIES = 100
EXPLAINED = 40
"""The number of rows whose contributions are computed with each model."""

NEIGHBOURS = 5
SEED = 1

MODELS: dict[str, Callable[[], Any]] = {
    "forest, 80 trees of depth 12": lambda: RandomForestClassifier(80, max_depth=12, random_state=SEED, n_jobs=-1),
    "80 extra-trees, any depth": lambda: ExtraTreesClassifier(80, random_state=SEED, n_jobs=-1),
    "LightGBM, 100 rounds": lambda: LGBMClassifier(random_state=SEED, verbose=-1),
    "logistic regression": lambda: LogisticRegression(max_iter=500),
    "k-nearest neighbours": lambda: KNeighborsClassifier(5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="rows of covertype; generated ones otherwise")
    asked = parser.parse_args()
    table = read(asked.csv) if asked.csv else generated(ROWS)
    held_out = hashing.is_held_out(COVERTYPE, table)
    seen, unseen = table[~held_out], frames.canonical(COVERTYPE, table[held_out].head(QUERIES))
    result = spaces(seen, unseen) | contributions(seen, unseen.head(EXPLAINED))
    say(f"RESULT {json.dumps(result)}")


def spaces(seen: pd.DataFrame, unseen: pd.DataFrame) -> dict[str, float]:
    """Time for the neighbours and principal components of one row, by number of training rows."""
    predictor = Predictor(COVERTYPE, fitted(MODELS["logistic regression"](), seen))
    say(f"{NEIGHBOURS} neighbours and the picture; of {len(unseen)} rows, one by one\n")
    say("| training rows | file, MB | made in, s | memory, MB | p50, ms | p99, ms | CPU, ms |")
    say("|---:|---:|---:|---:|---:|---:|---:|")
    result: dict[str, float] = {}
    for size in SIZES:
        content = written(seen if size <= len(seen) else generated(size))
        before, began = memory_mb(), perf_counter()
        space = Space(predictor.encoded, reference.read(COVERTYPE, content))
        made, grown = perf_counter() - began, memory_mb() - before

        def one(row: dict[str, Any], space: Space = space) -> None:
            encoded = predictor.encoded(predictor.matrix([row]))
            space.nearest(encoded, NEIGHBOURS)
            space.projection(encoded)

        times, cpu = timed(one, unseen)
        p50, p99 = np.percentile(times, [50, 99])
        say(f"| {size:,} | {len(content) / 1e6:.2f} | {made:.2f} | {grown:.0f} | {p50:.1f} | {p99:.1f} | {cpu:.1f} |")
        result |= {f"neighbours_ms_{size}": round(float(p50), 1), f"neighbours_cpu_ms_{size}": round(cpu, 1)}
    return result


def contributions(seen: pd.DataFrame, unseen: pd.DataFrame) -> dict[str, float]:
    """Time for the contributions of one row, by model."""
    budget = Settings().explain_budget
    seen_rows = reference.read(COVERTYPE, written(seen))
    say(f"\nContributions, trained on {len(seen):,} rows; what is not exact has {1000 * budget:.0f} ms\n")
    say("| model | how | ready in, s | first of a class, ms | p50, ms | p99, ms | CPU, ms | error |")
    say("|---|---|---:|---:|---:|---:|---:|---:|")
    result: dict[str, float] = {}
    for name, build in MODELS.items():
        predictor = Predictor(COVERTYPE, fitted(build(), seen))
        began = perf_counter()
        contributor = Contributor(predictor, seen_rows, 0)
        ready = perf_counter() - began
        found: list[Any] = []

        def one(
            row: dict[str, Any],
            predictor: Predictor = predictor,
            contributor: Contributor = contributor,
            found: list[Any] = found,
        ) -> None:
            numbers = predictor.matrix([row])
            chosen = predictor.classes.index(predictor.predict([row])[0].prediction)
            found.append(contributor.explain(numbers, predictor.encoded(numbers), chosen, budget))

        first, (times, cpu) = max(timed(one, unseen)[0]), timed(one, unseen)
        p50, p99 = np.percentile(times, [50, 99])
        error = max((c.error or 0 for parts in found for c in parts.features), default=0)
        how = found[0].method if found[0].exact else f"{found[0].method}, {found[-1].draws:,} draws"
        say(
            f"| {name} | {how} | {ready:.2f} | {first:.0f} | {p50:.1f} | {p99:.1f} | {cpu:.1f} | {error or 'none':.4} |"
        )
        key = name.split(",")[0].replace(" ", "_").replace("-", "_")
        result |= {f"contributions_ms_{key}": round(float(p50), 1), f"contributions_cpu_ms_{key}": round(cpu, 1)}
    return result


def timed(work: Callable[[dict[str, Any]], None], unseen: pd.DataFrame) -> tuple[list[float], float]:
    """Milliseconds for each row, and mean CPU milliseconds."""
    times = []
    started = process_time()
    for row in unseen.to_dict("records"):
        began = perf_counter()
        work({str(name): value for name, value in row.items()})
        times.append(1000 * (perf_counter() - began))
    return times, 1000 * (process_time() - started) / len(times)


def fitted(classifier: Any, seen: pd.DataFrame) -> Any:
    return pipeline(COVERTYPE, classifier).fit(frames.canonical(COVERTYPE, seen), seen[COVERTYPE.target.name])


def written(table: pd.DataFrame) -> bytes:
    with TemporaryDirectory(prefix="dosel-benchmark-") as folder:
        classes = table[COVERTYPE.target.name].to_numpy(np.int64)
        return reference.write(COVERTYPE, frames.canonical(COVERTYPE, table), classes, Path(folder)).read_bytes()


def memory_mb() -> float:
    return psutil.Process(os.getpid()).memory_info().rss / 1e6


if __name__ == "__main__":
    main()
