"""Writes the locks from pyproject.toml: for the runtime, for the tools, and for each image.

    python scripts/lock.py

`requirements.lock` has everything that runs. `requirements-dev.lock` has the same versions, and lists only packages
that `requirements.lock` does not pin for the same systems. An image's `requirements.txt` is complete: a part of
`requirements.lock` and, for Airflow, Celery.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.lock"
DEV = "requirements-dev.lock"
IMAGES = {"serving": "app", "page": "ui", "data-api": "external", "tracking": "mlflow", "pipeline": "airflow"}
"""Each dependency group of pyproject.toml, and the folder of the image that has it."""

COMPILE = (
    *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"),
    *("--universal", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
)


def main() -> None:
    run("pyproject.toml", "--output-file", RUNTIME)
    installed = entries(RUNTIME)
    run("pyproject.toml", "--extra", "dev", "--constraint", RUNTIME, "--output-file", DEV)
    added = [text for name, text in entries(DEV).items() if pins(text) != pins(installed.get(name, ""))]
    Path(ROOT / DEV).write_text("".join(added))
    for group, folder in IMAGES.items():
        run("--group", group, "--constraint", RUNTIME, "--output-file", f"{folder}/requirements.txt")


def run(*arguments: str) -> None:
    subprocess.run([*COMPILE, *arguments], cwd=ROOT, check=True)


def entries(lock: str) -> dict[str, str]:
    """The lines of each package, which may have several versions for different Pythons or systems."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]:
        name = re.split(r"[=\[ ]", entry)[0]
        found[name] = found.get(name, "") + entry
    return found


def pins(entry: str) -> list[str]:
    """An entry's versions with their markers, without hashes: `colorama==0.4.6 ; sys_platform == 'win32'`."""
    return re.findall(r"^[A-Za-z0-9].*(?= \\$)", entry, re.MULTILINE)


if __name__ == "__main__":
    main()
