"""Writes the locks from pyproject.toml: what runs, and what the tools and Airflow's image need on top of it.

    python scripts/lock.py

`requirements.lock` is complete. The others leave out what stands in it, so a package is pinned in one place;
they hold for the very versions it has.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.lock"
ON_TOP = {"dev": "requirements-dev.lock", "celery": "airflow/requirements.txt"}
"""Each extra of pyproject.toml and its lock."""

COMPILE = (
    *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header"),
    *("--universal", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
)


def main() -> None:
    run("--output-file", RUNTIME)
    installed = entries(RUNTIME).keys()
    for extra, lock in ON_TOP.items():
        run("--extra", extra, "--constraint", RUNTIME, "--output-file", lock)
        added = [text for name, text in entries(lock).items() if name not in installed]
        Path(ROOT / lock).write_text("".join(added))


def run(*arguments: str) -> None:
    subprocess.run([*COMPILE, *arguments], cwd=ROOT, check=True)


def entries(lock: str) -> dict[str, str]:
    """Each package's lines; a package may be there in several versions, each for some Pythons or systems."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]:
        name = re.split(r"[=\[ ]", entry)[0]
        found[name] = found.get(name, "") + entry
    return found


if __name__ == "__main__":
    main()
