"""Trains a version again from what it keeps, and compares the model's digest.

A version keeps the source that trained it, the lock of its libraries and its training rows, all signed. The
training runs in a process of its own. It uses this installation's Python if the libraries have the same versions, and
otherwise an environment that is installed from the lock (docs/adr/0022-reproduction.md).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import dosel
from dosel.environments import environment_of
from dosel.errors import ReproductionError
from dosel.model import bundle, source, tags
from dosel.model.facts import Facts
from dosel.model.fingerprint import code_version, declaration, declaration_changes
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.rows import hashing
from dosel.settings import Settings
from dosel.training.again import Answer, Request
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore

LAST_LINES = 15
"""How many of a failed training's last lines the error has."""


@dataclass(frozen=True)
class Difference:
    """What differs between the training of a version and its repetition, in words; `then` may be empty."""

    what: Literal["rows", "library", "declaration", "source", "model"]
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.then}; now {self.now}" if self.then else f"{self.what}: {self.now}"


@dataclass(frozen=True)
class Reproduction:
    """The result of a repeated training.

    Attributes:
        expected, found: the digests of the model that was registered, and of the one that was trained now.
        rows: where the training rows came from, a sentence.
        source: the commit of the source, or its digest without git.
        python: the interpreter that trained.
        differences: all that differs, in the order in which one explains the next.
    """

    model: str
    version: int
    family: str
    expected: str
    found: str
    rows: str
    source: str
    python: str
    differences: tuple[Difference, ...]

    @property
    def reproduced(self) -> bool:
        """Whether the model is equal, and the data store has no other rows under the same batches."""
        return self.found == self.expected and not any(difference.what == "rows" for difference in self.differences)


def reproduce(
    use_case: UseCase,
    registry: Registry,
    batches: BatchStore,
    number: int,
    settings: Settings,
    here: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> Reproduction:
    """Train a version again.

    Args:
        here: with the source and the libraries of this installation, whatever the version keeps.
        on_line: called with each line that the training prints about its progress.

    Raises:
        ModelNotFound, UntrustedModel: there is no such version, or its files are not those that were signed.
        ReproductionError: it lacks what a repetition needs, or the training failed.
    """
    version = registry.version(use_case.model_name, number)
    manifest = registry.manifest(version)
    if manifest is None or manifest.facts is None or tags.FAMILY_KEY not in manifest.facts.tags:
        raise ReproductionError(
            f"{version.name} version {number} was not trained by dosel: no training is recorded for it"
        )
    facts = manifest.facts
    with registry.files(version) as files, tempfile.TemporaryDirectory(prefix="dosel-reproduction-") as name:
        work = Path(name)
        request, rows = _request(facts, files, settings)
        lost = _changed_rows(use_case, batches, facts)
        root, python = _here(facts) if here else _as_then(version, facts, files, work / "source", settings)
        answer = _train(request, python, root, work, on_line)
    return Reproduction(
        model=version.name,
        version=number,
        family=facts.tags[tags.FAMILY],
        expected=facts.tags[tags.MODEL_DIGEST],
        found=answer.model_digest,
        rows=f"{rows}; {lost if isinstance(lost, str) else 'the data store has other rows now'}",
        source=facts.tags.get(tags.COMMIT) or facts.tags[tags.CODE_VERSION],
        python=str(python),
        differences=(*((lost,) if isinstance(lost, Difference) else ()), *_differences(facts, answer)),
    )


def _request(facts: Facts, files: Path, settings: Settings) -> tuple[Request, str]:
    """What is to be trained, and a sentence about the training rows."""
    known, count = facts.tags, int(facts.tags[tags.ROWS_TRAIN])
    keys = tuple(json.loads(known.get(tags.ROWS, "[]")))
    file = files / "extra_files" / bundle.REFERENCE_FILE
    kept = 0 if keys else _count(file)
    if not keys and kept != count:
        raise ReproductionError(
            f"the version keeps {kept:,} of its {count:,} training rows: an older dosel trained it. Train again, which "
            "keeps all"
        )
    request = Request(
        use_case=known[tags.USE_CASE],
        family=known[tags.FAMILY],
        seed=int(known[tags.SEED]),
        data_digest=known[tags.DATA_DIGEST],
        split=known[tags.SPLIT_VERSION],
        trials=int(facts.params.get("trials", 0)),
        rows="" if keys else str(file),
        keys=keys,
        jobs=settings.jobs,
    )
    return request, f"{count:,} training rows, kept {'in the lake' if keys else 'with the version'}"


def _count(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows) if file.is_file() else 0


def _changed_rows(use_case: UseCase, batches: BatchStore, facts: Facts) -> Difference | str:
    """How the data store's rows differ from those of the training; a sentence if they do not, or cannot be compared."""
    ids = json.loads(facts.tags[tags.BATCH_IDS])
    named = f"batch{'' if len(ids) == 1 else 'es'} {', '.join(map(str, ids))}"
    if declaration_changes(facts.declaration, declaration(use_case)):
        return "those of the data store follow another declaration now"
    if not set(ids) <= {record.id for record in batches.records()}:
        return f"the data store no longer has all of {named}"
    keys, edited = [np.zeros(0, np.int64)], []
    for batch_id in ids:
        clean = batches.clean(batch_id)
        keys.append(hashing.row_keys(use_case, clean))
        if (keys[-1] != clean["row_key"].to_numpy()).any():
            edited.append(f"batch {batch_id}")
    digest = hashing.digest(np.concatenate(keys))
    if digest == (then := facts.tags[tags.DATA_DIGEST]):
        return f"the data store still has the rows of {named}"
    where = f"edited rows in {', '.join(edited)}" if edited else f"other rows in {named}"
    return Difference("rows", f"the rows of {named} had the digest {then[:16]}", f"{where}, digest {digest[:16]}")


def _here(facts: Facts) -> tuple[Path, Path]:
    return Path(dosel.__file__).parents[1], Path(sys.executable)


def _as_then(version: ModelVersion, facts: Facts, files: Path, folder: Path, settings: Settings) -> tuple[Path, Path]:
    """A folder with the source of that training, and a Python with its libraries."""
    archive = files / "extra_files" / source.ARCHIVE
    if not archive.is_file():
        if facts.tags[tags.CODE_VERSION] == code_version():
            return _here(facts)
        raise ReproductionError(
            f"{version.name} version {version.version} keeps no source code: an older dosel trained it "
            f"({facts.tags[tags.CODE_VERSION]}); --here trains with the source and libraries of this installation"
        )
    lock, then = source.unpack(archive, folder), json.loads(facts.tags[tags.LIBRARIES])
    if not (changes := source.library_changes(then, source.libraries())):
        return folder, Path(sys.executable)
    if not lock:
        listed = ", ".join(f"{name} {before}" for name, (before, _) in changes.items())
        raise ReproductionError(
            f"{version.name} version {version.version} was trained with {listed}, and keeps no lock file from which an "
            "environment can be made; --here trains with the source and libraries of this installation"
        )
    return folder, environment_of(lock, then["python"], settings.home)


def _train(request: Request, python: Path, root: Path, work: Path, on_line: Callable[[str], None]) -> Answer:
    """Run the training with the source in `root`."""
    asked, answered = work / "request.json", work / "answer.json"
    asked.write_text(json.dumps(asdict(request)))
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [str(python), "-m", "dosel.training.again", str(asked), str(answered)]
    last = deque[str](maxlen=LAST_LINES)
    with subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                on_line(last[-1])
        finally:
            process.kill()
    if not answered.exists():
        raise ReproductionError("the training failed:\n" + "\n".join(last))
    known = json.loads(answered.read_text())
    return Answer(**{name: known[name] for name in Answer.__dataclass_fields__ if name in known})


def _differences(facts: Facts, answer: Answer) -> Iterator[Difference]:
    known = facts.tags
    changes = source.library_changes(json.loads(known.get(tags.LIBRARIES, "{}")), answer.libraries)
    for name, (then, now) in changes.items():
        yield Difference("library", f"{name} {then or 'was not installed'}", now or "it is not installed")
    changed = declaration_changes(facts.declaration, answer.declaration)
    # The family's key also depends on dosel's version, so that keys of two versions cannot be compared.
    if not changed and _release(known[tags.CODE_VERSION]) == _release(answer.code_version):
        changed = "" if known[tags.FAMILY_KEY] == answer.family_key else "the search or the metric differs"
    if changed:
        yield Difference("declaration", "", changed)
    if known[tags.CODE_VERSION] != answer.code_version:
        commit = known.get(tags.COMMIT, "")
        then = known[tags.CODE_VERSION] + (f", commit {commit}" if commit else "")
        yield Difference("source", then, answer.code_version)
    if known[tags.MODEL_DIGEST] != answer.model_digest:
        params = {name.removeprefix("best_"): v for name, v in facts.params.items() if name.startswith("best_")}
        then = _model(known[tags.MODEL_DIGEST], params, facts.metrics["best_cv_score"])
        yield Difference("model", then, _model(answer.model_digest, answer.params, answer.score))


def _model(digest: str, params: Mapping[str, str], score: float) -> str:
    chosen = ", ".join(f"{name.rpartition('__')[2]}={value}" for name, value in sorted(params.items()))
    return f"{digest[:16]} with {chosen}, cross-validation score {score:.6f}"


def _release(code: str) -> str:
    return code.partition("+")[0]
