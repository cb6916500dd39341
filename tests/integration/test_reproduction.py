"""A version is trained again from what it keeps, in a process of its own: an equal model, or a named difference."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from sqlalchemy import text
from typer.testing import CliRunner

from dosel import reproduction
from dosel.cli import cli, common
from dosel.errors import ReproductionError
from dosel.model import reference, source
from dosel.pipeline import Pipeline
from dosel.reproduction import Reproduction, reproduce
from dosel.settings import Settings
from dosel.training import again, train
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.reset import clear
from tests.integration.stores import copy_database
from tests.integration.test_partitioned import PARTITIONED
from tests.integration.worlds import Deliveries, batch

KNN = replace(PENGUINS, families=PENGUINS.families[:1])
OTHER = replace(KNN, families=(replace(KNN.families[0], space={"n_neighbors": (2,)}),))
"""Searches what the declared family does not."""


@dataclass
class Lab:
    """An installation with versions: 1 of the declared family, 2 of another search under its name."""

    settings: Settings

    def pipeline(self, use_case: UseCase = KNN) -> Pipeline:
        return Pipeline(use_case, self.settings)

    def reproduce(self, number: int, here: bool = False) -> Reproduction:
        pipeline = self.pipeline()
        return reproduce(KNN, pipeline.registry, pipeline.batches, number, self.settings, here)

    def edit(self, statement: str) -> None:
        with self.pipeline().registry.ledger.engine.begin() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="module")
def kept(empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a `Lab`."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(folder)
        lab = Lab(settings_of(folder, empty_mlflow))
        MlflowClient(lab.settings.tracking_uri).create_experiment(KNN.experiment, str(folder / "artifacts"))
        lab.pipeline().ingest(lab.pipeline().source())
        for use_case in (KNN, OTHER):
            lab.pipeline(use_case).register(lab.pipeline(use_case).train())
        yield folder
    mlflow.set_tracking_uri(None)


def settings_of(folder: Path, mlflow_database: Path) -> Settings:
    copy_database(mlflow_database, folder / "mlflow.db")
    return Settings(home=folder, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", jobs=1)


@pytest.fixture
def lab(kept: Path, tmp_path: Path, bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The same versions in databases of the test's own."""
    copy_database(kept / "warehouse.db", tmp_path / "warehouse.db")
    monkeypatch.chdir(tmp_path)
    return Lab(settings_of(tmp_path, kept / "mlflow.db"))


@pytest.mark.soak
def test_a_version_keeps_the_source_that_trained_it(lab: Lab, tmp_path: Path) -> None:
    registry = lab.pipeline().registry
    with registry.files(registry.version(KNN.model_name, 1)) as folder:
        lock = source.unpack(folder / "extra_files" / source.ARCHIVE, tmp_path / "unpacked")
    assert b"scikit-learn==" in lock
    assert (tmp_path / "unpacked" / "dosel" / "reproduction.py").read_text() == Path(reproduction.__file__).read_text()
    assert source.commit().name in registry.card(KNN, registry.version(KNN.model_name, 1)).lineage["commit"]


def test_a_version_is_trained_again_to_an_equal_model(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "load_settings", lambda: lab.settings)
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["reproduce", "penguins", "1"])
    assert shown.exit_code == 0, shown.output
    assert "penguins_species version 1 (knn): the model that was trained now equals the registered one" in shown.stdout
    assert "kept with the version; the data store still has the rows of batch 1" in shown.stdout
    assert "candidate 6/6" in shown.stderr
    as_json = CliRunner().invoke(cli, ["reproduce", "penguins_species", "1", "--json"])
    found = json.loads(as_json.stdout)
    assert found["reproduced"] is True
    assert found["expected"] == found["found"]
    assert found["differences"] == []


@pytest.mark.soak
def test_a_model_of_another_search_is_another_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "load_settings", lambda: lab.settings)
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["reproduce", "penguins", "2"])
    assert shown.exit_code == 1
    assert "the model that was trained now differs from the registered one" in shown.stdout
    assert "first difference: declaration: the search or the metric differs" in shown.stdout
    assert "with n_neighbors=2, cross-validation score 0.9" in shown.stdout


def test_edited_rows_of_the_data_store_are_named(lab: Lab) -> None:
    lab.edit("UPDATE penguins_clean SET body_mass_g = body_mass_g + 1 WHERE row_no = 0")
    found = lab.reproduce(1)
    assert found.found == found.expected
    assert not found.reproduced
    [difference] = found.differences
    assert (difference.what, difference.now[:23]) == ("rows", "edited rows in batch 1,")


@pytest.mark.soak
def test_a_version_is_trained_again_after_its_batches_were_removed(lab: Lab) -> None:
    clear(lab.pipeline().registry.ledger.engine, KNN)
    found = lab.reproduce(1)
    assert found.reproduced
    assert found.rows.endswith("the data store no longer has all of batch 1")


@pytest.mark.soak
def test_another_source_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "code_version", lambda: "0.1.0+another")
    monkeypatch.setattr(source, "_archive", lambda: b"no archive")
    number = lab.pipeline(LOGISTIC).register(lab.pipeline(LOGISTIC).train())
    with pytest.raises(ReproductionError, match=r"source\.zip of the version cannot be unpacked"):
        lab.reproduce(number)
    found = lab.reproduce(number, here=True)
    assert found.reproduced
    [difference] = found.differences
    assert difference.what == "source"
    assert difference.then.startswith("0.1.0+another")


LOGISTIC = replace(PENGUINS, families=PENGUINS.families[1:2])


@pytest.mark.soak
def test_other_libraries_are_taken_from_an_environment_by_the_lock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    then = source.libraries()
    monkeypatch.setattr(source, "libraries", lambda: then | {"scikit-learn": "1.0"})
    asked = []

    def environment_of(lock: bytes, python: str, home: Path) -> Path:
        asked.append((b"scikit-learn==" in lock, python, home))
        return Path(sys.executable)

    monkeypatch.setattr(reproduction, "environment_of", environment_of)
    assert lab.reproduce(1).reproduced
    assert asked == [(True, then["python"], lab.settings.home)]


@pytest.mark.parametrize("gone", ["the file", "some rows"])
def test_a_version_without_all_its_rows_says_so(gone: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "_count", lambda file: 0 if gone == "the file" else 100)
    with pytest.raises(ReproductionError, match=r"keeps (0|100) of its \d+ training rows: an older dosel trained it"):
        lab.reproduce(1)


@pytest.mark.soak
def test_a_version_that_keeps_no_source_is_reproduced_only_by_equal_source(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "ARCHIVE", "another.zip")
    assert lab.reproduce(1).reproduced
    monkeypatch.setattr(reproduction, "code_version", lambda: "0.2.0+new")
    with pytest.raises(ReproductionError, match=r"keeps no source.*--here trains"):
        lab.reproduce(1)


def test_a_failed_training_shows_its_last_lines(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOSEL_USE_CASES", "")
    monkeypatch.setattr(reproduction, "_as_then", lambda *_: (Path("/nowhere"), Path("/bin/false")))
    with pytest.raises(ReproductionError, match="the training failed"):
        lab.reproduce(1)


class TestRowsInTheLake:
    """Training rows that are more than a version's own file keeps."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tracking_uri: str) -> Settings:
        return Settings(home=tmp_path, tracking_uri=tracking_uri, jobs=1)

    def again(self, use_case: UseCase, settings: Settings, rows: list[list[str]]) -> Reproduction:
        pipeline = Pipeline(use_case, settings)
        pipeline.ingest(Deliveries(batch(rows[:150], 1), batch(rows[150:], 2)))
        number = pipeline.register(pipeline.train())
        return reproduce(use_case, pipeline.registry, pipeline.batches, number, settings)

    @pytest.fixture(autouse=True)
    def small_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reference, "MOST_ROWS", 100)

    @pytest.mark.soak
    def test_training_rows_are_kept_by_their_digest(
        self, settings: Settings, received: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOSEL_HOME", str(settings.home))
        lightgbm = replace(COVERTYPE, families=COVERTYPE.families[2:])
        found = self.again(lightgbm, settings, received(300))
        assert found.reproduced, found.differences
        assert "training rows, kept in the lake; the data store still has" in found.rows

    @pytest.mark.soak
    def test_partitions_give_the_same_rows_again(
        self, settings: Settings, received: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In this process, since no declared family is partitioned."""
        monkeypatch.setenv("DOSEL_HOME", str(settings.home))
        monkeypatch.setattr(again, "named", lambda name: PARTITIONED)
        asked: list[again.Request] = []

        def in_this_process(request: again.Request, *_: object) -> again.Answer:
            asked.append(request)
            return again.train_again(request)

        monkeypatch.setattr(reproduction, "_train", in_this_process)
        found = self.again(PARTITIONED, settings, received(300))
        assert found.reproduced, found.differences
        assert len(asked[0].keys) == 2
