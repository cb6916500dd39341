"""Tampers with versions as somebody who owns MLflow, its artifact store and the API's disk: files, signatures, run ids,
aliases, tags and the cache of a real installation. Each change is undone before the next one.
"""

import json
import random
import shutil
import sqlite3
import tempfile
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from app.serving.version_loader import VersionLoader
from dosel.errors import DoselError
from dosel.model import bundle, signature, tags
from dosel.pipeline import Pipeline
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.settings import Settings
from dosel.signing import signing_key
from dosel.usecases.penguins import PENGUINS

USE_CASE = replace(PENGUINS, families=PENGUINS.families[:2])
MODEL, SLOT = USE_CASE.model_name, USE_CASE.name


@dataclass
class Installation:
    """Two versions, of which the first one is in Production and in the API's cache.

    Attributes:
        folders: where the artifact store has the files of each version.
        known: each version as the ledger has it.
    """

    settings: Settings
    registry: Registry
    folders: Mapping[int, Path]
    known: Mapping[int, ModelVersion]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri)

    @property
    def database(self) -> Path:
        return Path(self.settings.tracking_uri.removeprefix("sqlite:///"))

    @property
    def cache(self) -> Path:
        [folder] = (self.settings.home / "serving").glob(f"*/{SLOT}")
        return folder

    def is_refused(self, number: int) -> bool:
        """Whether the check that the gate, a promotion and the API make refuses the version's files."""
        try:
            self.registry.check(self.registry.version(MODEL, number))
        except DoselError:
            return True
        return False

    def is_cache_refused(self) -> bool:
        """Whether an API that starts without MLflow and the data store answers with nothing from its disk."""
        try:
            return VersionLoader(self.settings).last_known(USE_CASE, SLOT) is None
        except DoselError:
            return True

    def is_put_back(self) -> bool:
        """Whether the next read of the registry finds the version of the ledger, and sets MLflow's aliases to it."""
        served = self.registry.production_number(MODEL)
        self.registry.reconcile(MODEL)
        aliases = self.client.get_registered_model(MODEL).aliases
        families = {version.tags[tags.FAMILY]: number for number, version in self.known.items()}
        expected = {"production": 1} | families
        return served == 1 and {name: int(number) for name, number in aliases.items()} == expected

    def is_unchanged(self) -> bool:
        """Whether every version is shown as the ledger has it, whatever MLflow says."""
        shown = {number: self.registry.version(MODEL, number) for number in self.known}
        return all(shown[n].tags == v.tags and shown[n].metrics == v.metrics for n, v in self.known.items())


Check = Callable[[], bool]
"""Whether a change was found, or changed nothing that is served or shown."""

Tampering = Callable[[Installation, random.Random], Check]


def change_file(here: Installation, chance: random.Random) -> Check:
    """Change one byte of a version's file."""
    number = chance.choice(list(here.folders))
    _flip(chance.choice(_files(here.folders[number])), chance)
    return lambda: here.is_refused(number)


def swap_file(here: Installation, chance: random.Random) -> Check:
    """Exchange a file for that of the other version."""
    number = chance.choice(list(here.folders))
    mine, other = here.folders[number], here.folders[3 - number]
    pairs = [(file, other / file.relative_to(mine)) for file in _files(mine)]
    file, theirs = chance.choice([(a, b) for a, b in pairs if b.exists() and a.read_bytes() != b.read_bytes()])
    shutil.copy(theirs, file)
    return lambda: here.is_refused(number)


def remove_file(here: Installation, chance: random.Random) -> Check:
    """Remove a file, or add one."""
    number = chance.choice(list(here.folders))
    if chance.random() < 0.5:
        chance.choice(_files(here.folders[number])).unlink()
    else:
        (here.folders[number] / f"{chance.randrange(10**9)}.py").write_text("print('mine')")
    return lambda: here.is_refused(number)


def sign_as_stranger(here: Installation, chance: random.Random) -> Check:
    """Change a file, and sign the files with another key."""
    number = chance.choice(list(here.folders))
    folder = here.folders[number]
    _flip(folder / "MLmodel", chance)
    stranger = signing_key(Settings(signing_key=str(here.settings.home / "stranger.pem")))
    assert stranger is not None
    (folder / bundle.SIGNATURE_FILE).write_bytes(signature.sign(stranger, MODEL, bundle.hash_files(folder)))
    return lambda: here.is_refused(number)


def change_cache(here: Installation, chance: random.Random) -> Check:
    """Change one byte of the API's cache: a file, a record, or the name of the version in Production."""
    _flip(chance.choice(_files(here.cache)), chance)
    return here.is_cache_refused


def change_run(here: Installation, chance: random.Random) -> Check:
    """Give a version the run or the files of the other one, in MLflow's database."""
    number, part = chance.randrange(2), chance.randrange(3)
    runs = [list(row) for row in _runs(here)]
    if runs[number][part] == runs[1 - number][part]:
        part = 0
    runs[number][part] = runs[1 - number][part]
    _set_runs(here, [tuple(row) for row in runs])
    changed = int(runs[number][3])
    # MLflow has two addresses of the files and reads only one of them; a change of the other has no effect.
    return lambda: here.is_refused(changed) or (part > 0 and here.is_unchanged())


def move_alias(here: Installation, chance: random.Random) -> Check:
    """Move an alias in MLflow."""
    alias = chance.choice(("production", *(version.tags[tags.FAMILY] for version in here.known.values())))
    now = int(here.client.get_registered_model(MODEL).aliases[alias])
    here.client.set_registered_model_alias(MODEL, alias, str(3 - now))
    return here.is_put_back


def edit_tag(here: Installation, chance: random.Random) -> Check:
    """Edit a tag of a version or of its run in MLflow."""
    number, text = chance.choice(list(here.known)), chance.choice(("", "0" * 64, "knn", "passed", "[1, 2]"))
    names = (tags.MANIFEST, tags.MODEL_DIGEST, tags.FAMILY, tags.GATE, tags.DATA_DIGEST, tags.BACKEND, tags.BATCH_IDS)
    if chance.random() < 0.5:
        here.client.set_model_version_tag(MODEL, str(number), chance.choice(names), text)
    else:
        here.client.set_tag(here.known[number].run_id, chance.choice(names), text)
    return here.is_unchanged


TAMPERINGS: Mapping[str, Tampering] = {
    "a version's file or signature changed": change_file,
    "a version's file or signature exchanged": swap_file,
    "a version's file removed or added": remove_file,
    "a version signed by a stranger": sign_as_stranger,
    "the API's cache changed": change_cache,
    "a version's run or files exchanged in MLflow": change_run,
    "an alias moved in MLflow": move_alias,
    "a tag edited in MLflow": edit_tag,
}


def tamper(count: int, chance: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Tamper that many times; return how often in each way, and how often it was missed."""
    done, missed = Counter[str](), Counter[str]()
    with installation() as here:
        home = here.settings.home
        for part in ("artifacts", "serving"):
            shutil.copytree(home / part, home / "clean" / part)
        runs = _runs(here)
        while done.total() < count:
            name = chance.choice(list(TAMPERINGS))
            found = TAMPERINGS[name](here, chance)
            done[name] += 1
            missed[name] += not found()
            if TAMPERINGS[name] is change_run:
                _set_runs(here, runs)
            elif TAMPERINGS[name] not in (move_alias, edit_tag):
                for part in ("artifacts", "serving"):
                    shutil.rmtree(home / part)
                    shutil.copytree(home / "clean" / part, home / part)
    return done, missed


@contextmanager
def installation() -> Iterator[Installation]:
    """Train two families, and put the first one into Production."""
    with tempfile.TemporaryDirectory(prefix="dosel-benchmark-") as name:
        home = Path(name)
        uri, key = f"sqlite:///{home / 'mlflow.db'}", str(home / "keys" / "key.pem")
        settings = Settings(home=home, tracking_uri=uri, signing_key=key, jobs=1)
        mlflow.set_tracking_uri(uri)
        MlflowClient(uri).create_experiment(USE_CASE.experiment, str(home / "artifacts"))
        pipeline = Pipeline(USE_CASE, settings)
        pipeline.ingest(pipeline.source())
        pipeline.register(pipeline.train())
        registry = pipeline.registry
        known = {number: registry.version(MODEL, number) for number in (1, 2)}
        registry.promote(known[1], "a person", "to see it answer")
        loader = VersionLoader(settings)
        loader.load(registry, USE_CASE, SLOT, 1)
        loader.set_last(SLOT, 1, 1)
        folders = {
            number: file.parent
            for number, version in known.items()
            for file in (home / "artifacts").rglob("MLmodel")
            if f"run_id: {version.run_id}" in file.read_text()
        }
        yield Installation(settings, registry, folders, known)
    mlflow.set_tracking_uri(None)


def _runs(here: Installation) -> list[tuple[str, ...]]:
    """Run, files and number of each version, as MLflow's database has them."""
    with closing(sqlite3.connect(here.database)) as database:
        return database.execute("SELECT run_id, source, storage_location, version FROM model_versions").fetchall()


def _set_runs(here: Installation, runs: list[tuple[str, ...]]) -> None:
    with closing(sqlite3.connect(here.database)) as database, database:
        statement = "UPDATE model_versions SET run_id = ?, source = ?, storage_location = ? WHERE version = ?"
        database.executemany(statement, runs)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _flip(file: Path, chance: random.Random) -> None:
    """Change one byte of a file, or write one to an empty file; another spelling of the same signature is no change."""
    content = file.read_bytes()
    while True:
        changed = bytearray(content or b"\0")
        changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
        if file.name != bundle.SIGNATURE_FILE or _meaning(bytes(changed)) != _meaning(content):
            file.write_bytes(changed)
            return


def _meaning(content: bytes) -> object:
    """What a signature says: its key, its statement and its bytes; None if it cannot be read."""
    try:
        known = json.loads(content)
        envelope = known["dsseEnvelope"]
        signed = b64decode(envelope["payload"]), b64decode(envelope["signatures"][0]["sig"])
        hint = known["verificationMaterial"]["publicKey"]["hint"]
        return known["mediaType"], hint, envelope["payloadType"], signed
    except (ValueError, KeyError, TypeError, IndexError):
        return None
