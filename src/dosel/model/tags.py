"""Every MLflow tag that dosel writes, on runs and on model versions. A tag's text never changes: old runs carry it."""

import json
import re

_RUN_ID = re.compile("[0-9a-f]{32}")

VIEW = "mlflow.sharedViewState.dosel"
"""MLflow's tag of an experiment that keeps a view of its runs, for links that name it."""

RUN_KIND = "dosel.run"
"""What a run is: `COMPARISON`, `OF_FAMILY` or `PREPROCESSING`."""
COMPARISON, OF_FAMILY, PREPROCESSING = "comparison", "family", "etl"

USE_CASE = "dosel.use_case"
CODE_VERSION = "dosel.code_version"
"""dosel's version and a digest of its source."""
COMMIT = "dosel.commit"
"""The source's git commit, followed by "with changes" if files differed from it; not set without git."""
LOCK = "dosel.lock"
"""SHA-256 of the lock of all packages; not set if there is none."""
LIBRARIES = "dosel.libraries"
"""Versions of Python and of the packages that can change a fitted model, as JSON."""
DATA_DIGEST = "dosel.data_digest"
"""SHA-256 of the set of clean rows."""
BATCH_IDS = "dosel.batch_ids"
SPLIT_VERSION = "dosel.split_version"
ROWS = "dosel.rows"
"""Keys of the training rows in the lake's bucket `training-rows`, as JSON; only in the ledger's facts, and only if the
version's own file has not all rows."""
ROWS_TRAIN = "dosel.rows_train"
ROWS_TEST = "dosel.rows_test"
CORES = "dosel.cores"
SEED = "dosel.seed"

TRAINING_KEY = "dosel.training_key"
"""Digest of everything that decides a training's result: equal keys, equal result."""
FAMILY_KEY = "dosel.family_key"
"""The same for one family's run."""
PROCESSED_KEY = "dosel.processed_key"
"""The same for a preprocessing run."""
PROCESSED = "dosel.processed"
"""Addresses and digests of the files that a preprocessing run wrote."""

FAMILY = "dosel.family"
"""Which family's model it is; on runs, candidates and versions."""
CANDIDATE = "dosel.candidate"
"""Position of a candidate in its search, such as "3/27"."""
PRUNED = "dosel.pruned"
FAMILIES = "dosel.families"
"""A comparison's runs by family, as JSON."""
BEST_FAMILY = "dosel.best_family"
"""The family with the best cross-validation score of a comparison."""

EXAMPLE_ANSWER = "dosel.example_answer"
"""Probabilities by class code for the use case's example, recorded by the training, as JSON."""
MODEL_DIGEST = "dosel.model_digest"
MANIFEST = "dosel.manifest"
"""Digest of a version's manifest, for readers of MLflow; dosel itself reads the ledger."""

GATE = "dosel.gate"
"""The gate's verdict on a version: "passed" or "refused"."""
GATE_REASON = "dosel.gate_reason"
BACKEND = "dosel.form"
"""Which backend passed the parity check on the held-out rows: "onnx" or "scikit-learn"."""
BACKEND_REASON = "dosel.form_because"
OF_GATE = frozenset({GATE, GATE_REASON, BACKEND, BACKEND_REASON})
"""What the gate found, for readers of MLflow; dosel itself reads the ledger."""


def is_run_id(text: str) -> bool:
    """Whether a text has the form of an MLflow run's id. Any other text from MLflow is no part of a query."""
    return _RUN_ID.fullmatch(text) is not None


def read_runs(text: str) -> dict[str, str]:
    """The runs by family of the tag `FAMILIES`; none if it cannot be read, as anybody in MLflow can edit it."""
    try:
        runs = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(runs, dict):
        return {}
    return {family: run for family, run in runs.items() if isinstance(run, str) and is_run_id(run)}
