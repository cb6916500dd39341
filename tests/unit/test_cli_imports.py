"""Commands that only read the ledgers start fast: they import no machine-learning package."""

import subprocess
import sys
from pathlib import Path

RUN = """
import sys
from typer.testing import CliRunner
from dosel.cli import cli
for words in (
    *("--help", "use-cases", "history penguins", "versions penguins", "batches penguins", "quarantine penguins"),
    *("events", "verify", "open", "check", "public-key", "approvals", "status", "shadow"),
):
    command = words.split()
    result = CliRunner().invoke(cli, command)
    # Nothing runs, which `dosel status` says by its exit code.
    assert result.exit_code == (words == "status"), (command, result.output, result.exception)
    # `dosel shadow` computes evidence.
    libraries = ("mlflow", "sklearn", "pandas", "scipy", *(() if words == "shadow" else ("numpy", "pyarrow")))
    print(*command, ":", *(name for name in libraries if name in sys.modules))
    if command == ["--help"]:
        print("settings :", *(name for name in ("pydantic", "sqlalchemy", "rich.markdown") if name in sys.modules))
# What `dosel up` imports while the services need the processors.
import dosel.embedded.first_answers, dosel.embedded.up
print("up :", *(name for name in ("mlflow", "sklearn", "pandas") if name in sys.modules))
"""


def test_ledger_commands_import_no_machine_learning_package(tmp_path: Path) -> None:
    environment = {"PATH": "", "DOSEL_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "settings")}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(":")[2] for line in done.stdout.splitlines()] == [""] * 16, done.stdout
