"""What `dosel` prints to a terminal, to a pipe and as JSON.

A command whose colours, terminal or exit the test is about is a process of its own. The others run in the test's
process, since the imports of each would take a second.
"""

import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dosel.cli import cli, output
from dosel.db.engine import connect
from dosel.model.facts import Facts
from dosel.model.tags import FAMILY
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.verdicts import Verdict
from dosel.usecases.penguins import PENGUINS

DIGEST = "f" * 64
REASON = "a reason of many words " * 20 + "with a\ttab and [bold]brackets[/]"
DOSEL = (sys.executable, "-m", "dosel")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation whose ledger has an entry; a terminal of it has 60 columns."""
    home = tmp_path_factory.mktemp("home")
    ledger = PromotionLedger(connect(f"sqlite:///{home / 'warehouse.db'}"))
    evidence = Evidence(
        "manual", "1" * 32, manifest_digest=DIGEST, metrics_after={"accuracy": 0.5, "lost": float("nan")}
    )
    ledger.append(PENGUINS.model_name, 1, "ana", REASON, evidence)
    for version, family, accuracy in ((1, "knn", 0.5), (3, "xgboost", 0.75), (4, "knn", float("nan"))):
        # The first version is from before the figures on held-out rows had their name.
        name = "test_accuracy" if version == 1 else "holdout_accuracy"
        facts = Facts({name: accuracy, "training_accuracy": 1.0}, {}, {FAMILY: family})
        ledger.record_manifest(Manifest(PENGUINS.model_name, version, str(version) * 32, {}, facts))
    ledger.add_verdict(PENGUINS.model_name, 3, "3" * 32, Verdict(False, "no gain"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOSEL_", "MLFLOW_"))}
    return kept | {"DOSEL_HOME": str(home), "COLUMNS": "60", "TERM": "xterm-256color"}


def piped(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (*DOSEL, *arguments), env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def here(environment: dict[str, str], *arguments: str) -> Result:
    """Run a command in this process, with exactly this environment; its output goes to no terminal."""
    only = {name: environment.get(name) for name in os.environ | environment}
    return CliRunner(env=only).invoke(cli, arguments, catch_exceptions=False)


def on_terminal(environment: dict[str, str], *arguments: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen((*DOSEL, *arguments), env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        parts = []
        # Linux reports the end of a terminal as an error.
        with suppress(OSError):
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
        assert process.wait(60) == 0
    return b"".join(parts).decode()


def test_a_pipe_gets_whole_values_without_colours_below_a_header(environment: dict[str, str]) -> None:
    result = piped(environment, "history", "penguins")
    header, line = result.stdout.splitlines()
    entry = dict(zip(header.split("\t"), line.split("\t"), strict=True))
    assert entry["manifest_digest"] == DIGEST
    assert entry["reason"] == REASON.replace("\t", r"\t")
    assert entry["from_version"] == ""
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["tab-separated", "JSON"])
def test_the_quarantine_says_from_which_number_its_rows_count(
    environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    result = here(environment, "quarantine", "penguins", *arguments)
    assert result.stderr.endswith("refused rows; row_no counts from 0\n")
    shown = " ".join(on_terminal(environment, "quarantine", "penguins").split())
    assert shown.endswith("refused rows; row counts from 1, without the header")


def test_control_characters_of_a_note_do_not_reach_the_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    ledger = PromotionLedger(connect(f"sqlite:///{tmp_path / 'warehouse.db'}"))
    ledger.append(PENGUINS.model_name, 1, "ana", REASON)
    ledger.note(PENGUINS.model_name, "refused: \x1b[2K\x1b]0;owned\x07 and\rmore")
    here = environment | {"DOSEL_HOME": str(tmp_path)}
    shown = piped(here, "history", "penguins").stderr
    assert r"refused: \x1b[2K\x1b]0;owned\x07 and\x0dmore" in shown
    assert "\x1b" not in shown


FAILING = r"""
from dosel import cli
from dosel.cli.common import logged
from dosel.errors import DoselError
import logging

def fail():
    with logged():
        logging.getLogger("dosel.any").info("log \x1b[2K")
    raise DoselError("error \x1b[2K")

cli.cli = fail
cli.main()
"""


def test_control_characters_of_an_error_and_of_the_log_do_not_reach_the_terminal() -> None:
    failed = subprocess.run((sys.executable, "-c", FAILING), capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert failed.stderr == "log \\x1b[2K\ndosel: error \\x1b[2K\n"


def test_json_has_the_same_values_and_null_for_what_is_no_number(environment: dict[str, str]) -> None:
    [line] = here(environment, "history", "penguins", "--json").stdout.splitlines()
    entry = json.loads(line)
    assert (entry["reason"], entry["manifest_digest"]) == (REASON, DIGEST)
    assert entry["metrics_after"] == {"accuracy": 0.5, "lost": None}


def test_a_terminal_gets_a_table_within_its_width(environment: dict[str, str]) -> None:
    shown = on_terminal(environment, "history", "penguins")
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in shown.splitlines()) <= 60
    assert "since (UTC)" in shown
    assert "[bold]brackets[/]" in " ".join(shown.split())


HISTORY = ("#", "since (UTC)", "version", "by", "why")
PROMOTED = ("12", "2026-11-27 20:55:14", "3 → 4", "airflow scheduled__2026-11-27T20:55:00+00:00", "accuracy 1.0, " * 9)
COMPARED = ("figure", "rows", "version 1", "version 2", "difference")
FIGURE = ("balanced accuracy", "1,162", *3 * ("0.8123 (0.8011 to 0.8234)",))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize(
    ("titles", "row", "given", "left_out"),
    [
        (HISTORY, PROMOTED, {"least": ("by",)}, {60: "by", 80: "by"}),
        (COMPARED, FIGURE, {"folding": COMPARED[2:], "least": ("rows",)}, {60: "rows", 80: "rows"}),
    ],
    ids=["history", "compare"],
)
def test_a_narrow_terminal_keeps_the_columns_that_matter(
    titles: tuple[str, ...],
    row: tuple[str, ...],
    given: dict[str, tuple[str, ...]],
    left_out: dict[int, str],
    width: int,
) -> None:
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)
    with console.capture() as capture:
        console.print(output.plain_table(titles, [row], width=width, **given))
    lines = capture.get().splitlines()
    missing = left_out.get(width)
    assert max(len(line) for line in lines) <= width
    assert [title for title in titles if title in lines[0]] == [title for title in titles if title != missing]
    assert ("not shown on this narrow terminal: " in lines[-1]) == (missing is not None)
    assert "…" not in capture.get() or titles is HISTORY
    text = "".join("".join(lines).split())
    assert all("".join(cell.split())[:6] in text for title, cell in zip(titles, row, strict=True) if title != missing)


@pytest.mark.parametrize(("width", "is_whole"), [(80, False), (200, True)])
def test_a_value_is_cut_only_if_the_table_is_wider_than_the_terminal(width: int, is_whole: bool) -> None:
    row = (*PROMOTED[:4], "accuracy 1.0")
    table = output.plain_table(HISTORY, [row], width=width)
    [by] = [str(cell) for column in table.columns if column.header == "by" for cell in column.cells]
    assert (by == PROMOTED[3]) == is_whole


@pytest.mark.soak
@pytest.mark.parametrize(
    "command",
    [
        "history penguins",
        "versions penguins",
        "approvals",
        "events",
        "batches penguins",
        "shadow",
        "use-cases",
        "status",
        "open",
    ],
)
def test_each_listing_has_a_header_in_a_pipe_even_if_it_is_empty(environment: dict[str, str], command: str) -> None:
    lines = piped(environment, *command.split()).stdout.splitlines()
    assert lines
    assert {line.count("\t") for line in lines} == {lines[0].count("\t")}
    assert all(name.isidentifier() for name in lines[0].split("\t"))


@pytest.mark.parametrize(
    "command",
    [
        *("use-cases", "check", "batches penguins", "quarantine penguins", "health penguins", "history penguins"),
        *("versions penguins", "approvals", "events", "shadow", "verify", "status", "open"),
    ],
)
def test_each_command_that_shows_something_gives_json(environment: dict[str, str], command: str) -> None:
    result = here(environment, *command.split(), "--json")
    for line in result.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("command", ["history penguins", "history penguins --csv", "check", "verify"])
def test_a_reader_that_leaves_ends_a_command_quietly(environment: dict[str, str], command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        (*DOSEL, *command.split()), env=environment, stdout=writing, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writing)
    assert result.stderr == b""
    assert result.returncode == output.READER_GONE


def test_versions_says_where_each_one_stands_and_which_are_not_known(environment: dict[str, str]) -> None:
    result = here(environment, "versions", "penguins", "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    shown = ("version", "family", "state", "holdout_accuracy", "reason", "run_id")
    assert [tuple(version[name] for name in shown) for version in found] == [
        (4, "knn", "not judged", None, "", "4" * 32),
        (3, "xgboost", "refused", 0.75, "no gain", "3" * 32),
        (1, "knn", "Production", 0.5, REASON, "1" * 32),
    ]
    assert "does not know version 2" in result.stderr


def test_a_terminal_gets_the_beginning_of_a_run_id(environment: dict[str, str]) -> None:
    shown = on_terminal(environment | {"COLUMNS": "140"}, "versions", "penguins")
    assert "33333333 " in shown
    assert "3" * 9 not in shown


def test_open_prints_the_addresses_and_opens_no_browser_in_a_pipe(environment: dict[str, str], tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/opened\n")
    browser.chmod(0o755)
    ours = environment | {"DISPLAY": ":0", "BROWSER": f"{browser} %s", "API_PORT": "1234"}
    assert piped(ours, "open", "api").stdout.splitlines() == ["service\taddress", "api\thttp://localhost:1234/docs"]
    [_, mlflow] = here(ours | {"DOSEL_MLFLOW_URL": "https://mlflow.test/"}, "open", "mlflow").stdout.splitlines()
    assert mlflow == "mlflow\thttps://mlflow.test/#/experiments?workflowType=machine_learning"
    assert not (tmp_path / "opened").exists()
    on_terminal(ours, "open")
    assert not (tmp_path / "opened").exists()
    on_terminal(ours, "open", "api")
    assert (tmp_path / "opened").read_text() == "http://localhost:1234/docs\n"
    refused = here(environment, "open", "nothing")
    assert refused.exit_code == 2
    assert "airflow" in refused.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("history pen", ["penguins", "penguins_species"]), ("batches cov", ["covertype"]), ("open mi", ["minio"])],
)
def test_a_shell_completes_names(environment: dict[str, str], typed: str, completed: list[str]) -> None:
    asked = {"_DOSEL_COMPLETE": "complete_bash", "COMP_WORDS": f"dosel {typed}", "COMP_CWORD": "2"}
    dosel = Path(sys.executable).with_name("dosel")
    result = subprocess.run([dosel], env=environment | asked, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.splitlines() == completed


def test_help_lists_each_command_with_its_whole_sentence(environment: dict[str, str]) -> None:
    shown = " ".join(here(environment, "--help").stdout.split())
    for sentence in ("Start the embedded platform and wait until every use case answers.", "List the use cases."):
        assert sentence in shown
    assert "..." not in shown.partition("Commands:")[2]
