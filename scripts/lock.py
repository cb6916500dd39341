"""Writes the locks from pyproject.toml: for the runtime, and for the tools and Airflow's image.

    python scripts/lock.py

`requirements.lock` is complete. The others have its versions, and leave out every package that it pins for the same
systems.
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
    installed = entries(RUNTIME)
    for extra, lock in ON_TOP.items():
        run("--extra", extra, "--constraint", RUNTIME, "--output-file", lock)
        added = [text for name, text in entries(lock).items() if pins(text) != pins(installed.get(name, ""))]
        Path(ROOT / lock).write_text("".join(added))


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
