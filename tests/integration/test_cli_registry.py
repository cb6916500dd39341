"""The commands of `dosel` that move and show Production."""

import csv
import io
import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from mlflow.artifacts import load_text
from typer.testing import CliRunner, Result

from dosel.cli import cli, common, output
from dosel.errors import ModelNotFound, PromotionRefused, SettingsError, UnknownUseCase
from dosel.registry.artifact_roots import ArtifactRoot
from dosel.registry.store import CARD
from dosel.usecases import ALL, DEFAULT, Approval
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import World


class Terminal:
    """Run commands of `dosel` with the settings of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result: Result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output


@pytest.fixture
def dosel(world: World, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for a world with two registered versions, the first one in Production."""
    monkeypatch.setattr(common, "load_settings", lambda: world.settings)
    monkeypatch.setattr("getpass.getuser", lambda: "ana")
    world.enter("poor")
    world.register("good")
    return Terminal(world)


def test_promote_and_rollback_appear_in_the_history(dosel: Terminal) -> None:
    name = dosel.world.name
    assert f"no version of {name} was in Production" in dosel("history", name, "--at", "2020-01-01")
    assert f"{name}: version 2 is in Production, after version 1" in dosel(
        "promote", name, "2", "--reason", "[it] is better"
    )
    assert f"{name}: version 1 is in Production, after version 2" in dosel("rollback", "covertype")
    *lines, looks = dosel("history", name).splitlines()
    assert looks == "holdout 1: 0 of 100 looks used, 100 left until it is rotated"
    second = lines[2].split("\t")
    assert second[0] == "2"
    assert second[2:7] == ["1", "2", "manual", "command line, ana", "[it] is better"]
    rows = list(csv.DictReader(io.StringIO(dosel("history", name, "--csv"))))
    assert [(row["kind"], row["to_version"]) for row in rows] == [("gate", "1"), ("manual", "2"), ("rollback", "1")]
    assert dosel.world.aliases() == {"production": 1, "previous": 2}


def test_the_card_of_the_version_in_production_is_printed(dosel: Terminal) -> None:
    name = dosel.world.name
    text = dosel("card", "covertype")
    assert text.startswith(f"# {name} version 1\n")
    assert "| accuracy | all |" in text
    # The same card is with the version's run in MLflow.
    run = dosel.world.pipeline().registry.version(name, 1).run_id
    assert load_text(f"{dosel.world.client.get_run(run).info.artifact_uri}/{CARD}") == text
    assert json.loads(dosel("card", name, "2", "--format", "json"))["version"] == 2
    bill = json.loads(dosel("card", name, "2", "--format", "cyclonedx"))
    assert (bill["bomFormat"], bill["components"][0]["version"]) == ("CycloneDX", "2")


def declare_keys(dosel: Terminal, monkeypatch: pytest.MonkeyPatch, mine: str) -> None:
    """Declare keys of ana and ben, and use one of them."""
    keys = {"promote_keys": f"ana:{'a' * 20},ben:{'b' * 20}", "api_key": mine}
    settings = dosel.world.settings.model_copy(update=keys)
    monkeypatch.setattr(common, "load_settings", lambda: settings)


def test_the_actor_is_the_keys_name_where_keys_are_declared(dosel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dosel.world.name
    for wrong in ("", "x" * 20):
        declare_keys(dosel, monkeypatch, wrong)
        for command in (("promote", name, "2", "--reason", "x"), ("rollback", name), ("train", "covertype")):
            with pytest.raises(SettingsError, match="DOSEL_API_KEY: expected a key with the role promoter"):
                dosel(*command)
    declare_keys(dosel, monkeypatch, "b" * 20)
    dosel("promote", name, "2", "--reason", "better")
    entry = dosel.world.pipeline().registry.last_promotion(name)
    assert entry is not None
    assert entry.actor == "API key ben"


def test_a_promotion_waits_for_a_second_person(dosel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dosel.world.name
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(COVERTYPE, approval=Approval(people=2)),))
    monkeypatch.setattr("dosel.cli.models.ALL", (COVERTYPE,))
    with pytest.raises(PromotionRefused, match="needs 2 people with keys of the role promoter"):
        dosel("promote", name, "2", "--reason", "alone")
    assert "no promotion waits for approvals" in dosel("approvals")
    declare_keys(dosel, monkeypatch, "a" * 20)
    for _ in range(2):
        assert "version 2 waits for 1 more person (so far: ana)" in dosel("promote", name, "2", "--reason", "better")
    waiting = json.loads(dosel("approvals", "covertype", "--json"))
    assert (waiting["version"], waiting["agreed"], waiting["people"]) == (2, ["ana"], 2)
    with monkeypatch.context() as patch:
        patch.setattr(output, "is_terminal", lambda: True)
        assert re.search(r"2 +ana +2 .* better", dosel("approvals"))
    declare_keys(dosel, monkeypatch, "b" * 20)
    assert f"{name}: version 2 is in Production" in dosel("promote", name, "2", "--reason", "I agree")
    assert "no promotion waits for approvals" in dosel("approvals")
    assert "API keys ana, ben" in dosel("history", name)


@pytest.mark.soak
def test_what_the_gate_lets_pass_may_need_one_person(dosel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    world = dosel.world
    rules = Approval(people=2, automatic=1)
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(COVERTYPE, approval=rules),))
    pipeline = world.pipeline("good")
    for _ in range(2):
        outcome = pipeline.challenge(2, "the DAG")
        assert not outcome.promoted
        assert "passed the gate" in outcome.reason
        assert "version 2 waits for 1 more person, until" in outcome.reason
    assert not pipeline.training_due()
    declare_keys(dosel, monkeypatch, "a" * 20)
    dosel("promote", world.name, "2", "--reason", "looks right")
    entry = pipeline.registry.last_promotion(world.name)
    assert entry is not None
    assert (entry.evidence.kind, entry.evidence.request, entry.actor) == ("gate", 1, "the DAG, approved by ana")
    assert entry.evidence.gate is not None
    assert len(pipeline.registry.approvals.of_model(world.name)) == 1


def test_a_shadow_is_shown_and_stopped(dosel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal does not have the platform's setting DOSEL_SHADOW."""
    assert dosel("shadow").endswith("no version is in shadow\n")
    registry = dosel.world.pipeline().registry
    version = registry.version(dosel.world.name, 2)
    registry.start_shadow(version, "challenger", timedelta(days=1), "a test", "it is better", 1)
    header, line = (line.split("\t") for line in dosel("shadow").splitlines())
    assert dict(zip(header, line, strict=True))["role"] == "challenger"
    with monkeypatch.context() as terminal:
        terminal.setattr(output, "is_terminal", lambda: True)
        first, second, *_ = dosel("shadow").splitlines()
    assert first == "covertype: version 2 answers in shadow of version 1, as challenger"
    assert second.startswith("  it waits for 100 more labelled rows; until ")
    assert dosel("shadow", "--use-case", "penguins").endswith("no version is in shadow\n")
    document = json.loads(dosel("shadow", "--use-case", "covertype", "--json"))
    assert (document["use_case"], document["version"], document["champion"]) == ("covertype", 2, 1)
    ended = "covertype: the shadow of the challenger has ended: stopped; version 1 is in Production\n"
    assert dosel("shadow", "--ended").endswith("no shadow has ended yet\n")
    assert dosel("shadow", "stop", "covertype", "--reason", "a try").endswith(ended)
    assert dosel("shadow").endswith("no version is in shadow\n")
    with monkeypatch.context() as terminal:
        terminal.setattr(output, "is_terminal", lambda: True)
        first, second = dosel("shadow", "--ended").splitlines()
    assert first == "covertype: version 2, challenger of version 1: stopped"
    assert second.endswith(": a try")
    document = json.loads(dosel("shadow", "--ended", "--json"))
    assert (document["outcome"], document["evidence"]["labels"]) == ("stopped", 0)


def test_reconcile_prints_the_differences(dosel: Terminal) -> None:
    world = dosel.world
    others = [f"{use_case.model_name}\t\t[]" for use_case in ALL if use_case is not DEFAULT]
    header, *lines = dosel("reconcile").splitlines()
    assert header == "model\tversion\tnotes"
    assert sorted(lines) == sorted([f"{world.name}\t1\t[]", *others])
    source = str(world.client.get_model_version(world.name, "1").source)
    world.client.create_model_version(world.name, source, world.runs["fair"])
    world.client.set_registered_model_alias(world.name, "production", "3")
    record = json.loads(dosel("reconcile", world.name, "--json", code=1))
    assert "moved to version 3 outside dosel and is put back" in " ".join(record["notes"])
    assert (record["model"], record["version"]) == (world.name, 1)
    assert "put back" in dosel("history", world.name)
    before = world.pipeline().registry.ledger.history(world.name)[-1].at.isoformat()
    assert "put back" not in dosel("history", world.name, "--at", before)
    assert "manifest" in dosel("vouch", world.name, "3", "--reason", "made it myself")
    assert "ana vouched for the files of version 3: made it myself" in " ".join(dosel("history", world.name).split())
    dosel("promote", world.name, "3", "--reason", "now it may")


def test_gc_deletes_only_with_the_delete_option(dosel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = json.loads(dosel("gc", "--days", "0", "--json"))
    assert counts == {"deleted": False, "runs": 0, "models": 0, "orphans": 0, "waiting": 0, "kept": counts["kept"]}
    experiment = dosel.world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    root = ArtifactRoot(experiment.artifact_location.rpartition("/")[0])
    monkeypatch.setattr("dosel.registry.artifact_roots.artifact_roots", lambda _: (root,))
    counts = json.loads(dosel("gc", "--json"))
    assert (counts["deleted"], counts["runs"], counts["models"]) == (False, 0, 0)
    counts = json.loads(dosel("gc", "--days", "0", "--json"))
    assert (counts["deleted"], counts["runs"], counts["models"]) == (False, 4, 1)


def test_an_unknown_model_or_version_is_named(dosel: Terminal) -> None:
    with pytest.raises(UnknownUseCase, match=dosel.world.name):
        dosel("history", "nobody")
    with pytest.raises(ModelNotFound, match="has no version 9"):
        dosel("promote", dosel.world.name, "9", "--reason", "x")
    assert "2026-11-21T03:00:00Z" in dosel("history", dosel.world.name, "--at", "yesterday", code=2)
