"""A simulated week of batches without drift: each use case gets ten, and no harm may be reported.

python -m tests.soak.week [--rows 4000] [--seed 1]

The first three batches train a first version. Each later batch is scored before anything trains on it; after every
third one, a training follows and the gate decides, as in the DAGs.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dosel.db.engine import connect
from dosel.errors import QualityError
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.usecases import ALL, DataApiRows, UseCase
from dosel.warehouse.events import EventStore
from external.columns import as_words
from external.generator import generate
from tests.integration.worlds import Deliveries

BATCHES, TRAIN_EVERY = 10, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tracking_uri = f"sqlite:///{Path(folder, 'mlflow.db')}"
        settings = Settings.model_validate({"home": folder, "tracking_uri": tracking_uri, "trials": 3, "jobs": 2})
        labels = {use_case.name: a_week(use_case, settings, asked.rows, asked.seed) for use_case in ALL}
        events = EventStore(connect(settings.warehouse_url)).newest(1000)
    kinds = Counter(event.kind for event in events)
    sys.stdout.write(f"RESULT {json.dumps({'labels': labels, 'events': kinds, 'harm_messages': kinds['harmed']})}\n")
    sys.exit(kinds["harmed"] > 0)


def a_week(use_case: UseCase, settings: Settings, most: int, seed: int) -> int:
    """Run the batches of one use case; return the labelled rows that its versions answered."""
    pipeline = Pipeline(use_case, settings)
    whole = rows_of(use_case, pipeline, most, seed)
    rows = list(whole.rows)
    random.Random(seed).shuffle(rows)
    parts = [replace(whole, number=number + 1, rows=rows[number::BATCHES]) for number in range(BATCHES)]
    labels = 0
    for part in parts:
        # A tenth of the penguins can have too many incomplete rows by chance: such a batch is refused, as any other.
        with suppress(QualityError):
            [record] = pipeline.ingest(Deliveries(part))
            labels += record.rows_clean * len(pipeline.score())
        if part.number % TRAIN_EVERY == 0:
            train(pipeline)
    return labels


def train(pipeline: Pipeline) -> None:
    pipeline.challenge(pipeline.register(pipeline.train()), "a soak")


def rows_of(use_case: UseCase, pipeline: Pipeline, most: int, seed: int) -> Batch:
    """Up to this number of rows of the use case, as one batch."""
    if isinstance(use_case.rows, DataApiRows):
        made: Sequence[Sequence[Any]] = as_words(generate(most, seed), 1)
        return Batch("generated", "a soak", "", 1, made, "uci")
    batch = pipeline.source().next_batch()
    assert batch is not None
    return replace(batch, rows=list(batch.rows)[:most])


if __name__ == "__main__":
    main()
