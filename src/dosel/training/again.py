"""Trains one family again, in a process of its own: `python -m dosel.training.again REQUEST ANSWER`.

The process may run the source of another dosel than the one that asks (`dosel.reproduction`), since each version keeps
the source that trained it. So both files are a contract: new fields get defaults, and none changes its meaning.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dosel.model.digest import digest
from dosel.model.fingerprint import code_version, declaration
from dosel.model.reference import read
from dosel.model.source import libraries
from dosel.rows import frames, splits
from dosel.settings import Settings
from dosel.sources.lake import open_lake
from dosel.training.candidates import ScoredCandidate
from dosel.training.fan_out import Threads
from dosel.training.input_digests import family_key
from dosel.training.partitioned import InProcess, PartitionedData
from dosel.training.partitions import Partitions
from dosel.training.search import AnySearch, search_of
from dosel.training.stored_rows import StoredRows
from dosel.training.tracking import format_params
from dosel.usecases import Family, UseCase, named


@dataclass(frozen=True)
class Request:
    """What is trained again.

    Attributes:
        data_digest: of all clean rows, as `dosel.rows.hashing.digest` gives it.
        split: the version of the split.
        trials: of an Optuna search; 0 means the declared number.
        rows: file of the training rows, as `dosel.model.reference` writes it; "" if they are in the lake.
        keys: of the rows in the lake's bucket `training-rows`.
        jobs: cores that may be used, which changes no result; -1 means all.
    """

    use_case: str
    family: str
    seed: int
    data_digest: str
    split: str
    trials: int = 0
    rows: str = ""
    keys: tuple[str, ...] = ()
    jobs: int = -1


@dataclass(frozen=True)
class Answer:
    """What the training gave, and what it ran on; `params` are the best candidate's."""

    model_digest: str
    family_key: str
    code_version: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    declaration: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.0


def train_again(request: Request) -> Answer:
    """Search the family on the training rows, and fit the best candidate to them.

    Raises:
        UnknownUseCase, TrainingError, SourceError: the use case or the rows are not there.
    """
    use_case = named(request.use_case).with_trials(request.trials)
    if (split := splits.split_of(use_case, request.split)) is not None:
        use_case = replace(use_case, split=split)
    family = use_case.family(request.family)
    if family is None:
        raise SystemExit(f"{use_case.name} declares no family {request.family!r}")
    search = _fitted(use_case, family, request)
    return Answer(
        model_digest=digest(search.best_estimator_),
        family_key=family_key(use_case, family, request.data_digest, request.seed),
        code_version=code_version(),
        libraries=libraries(),
        declaration=declaration(use_case),
        params={name: str(value) for name, value in search.best_params_.items()},
        score=float(search.best_score_),
    )


def _fitted(use_case: UseCase, family: Family, request: Request) -> AnySearch:
    engine = Threads(request.jobs)
    if family.partitioned:
        settings = Settings.load()
        lake = open_lake(settings)
        partitions = Partitions(tuple(request.keys), request.data_digest, ())
        rows = PartitionedData(partitions, lake, InProcess(lake, request.jobs)).prepared(use_case)
        search = rows.search(family, request.seed, engine, "", "")
        search.on_candidate = _print_progress
        rows.fit(search)
        return search
    if request.rows:
        reference = read(use_case, Path(request.rows).read_bytes())
        features, classes = frames.canonical(use_case, reference.table.to_pandas()), reference.classes
    else:
        [key] = request.keys
        features, classes = StoredRows(key, Path(key).stem).load(Settings.load())
    search = search_of(use_case, family, request.seed, engine)
    search.on_candidate = _print_progress
    search.fit(features, classes)
    return search


def _print_progress(scored: ScoredCandidate) -> None:
    params = format_params(scored.params)
    sys.stderr.write(f"candidate {scored.number}/{scored.of}  {params}  score {scored.score:.4f}\n")
    sys.stderr.flush()


def main(request: str, answer: str) -> None:
    known = json.loads(Path(request).read_text())
    found = train_again(Request(**{name: known[name] for name in Request.__dataclass_fields__ if name in known}))
    Path(answer).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
