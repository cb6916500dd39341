"""Runs every benchmark in turn, and writes what each one prints to its part of docs/figures.md.

    make bench-all               ONLY="serving cli" runs some; BEFORE=folder adds another checkout to serving

It takes some hours on two cores. Nothing else should run on the machine: each part says the load at its start.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from benchmarks.installation import ROOT, parsed, say

PAGE = ROOT / "docs" / "figures.md"

BENCHMARKS = {
    "serving": "benchmarks.serving",
    "ingest": "benchmarks.ingest",
    "training": "benchmarks.training",
    "cluster": "benchmarks.cluster",
    "explain": "benchmarks.explain",
    "monitor": "benchmarks.monitor",
    "shadow": "benchmarks.shadow",
    "trust": "benchmarks.trust",
    "cli": "benchmarks.cli",
    "attack": "tests.attack",
}
"""The module of each benchmark, by the name of its part in docs/figures.md."""

COMPARE = ("serving",)
"""Benchmarks that are given the other checkout."""

QUIET = 0.5
"""A load average below which the machine counts as idle."""

WAIT_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"all by default: {', '.join(BENCHMARKS)}")
    parser.add_argument("--before", type=Path, help="another checkout with an environment in its .venv")
    asked = parsed(parser, "only", BENCHMARKS)
    failed = []
    for name in asked.only or BENCHMARKS:
        compared = ("--before", str(asked.before)) if asked.before and name in COMPARE else ()
        load = quiet_load()
        lines, code = run(BENCHMARKS[name], compared)
        if code:
            failed.append(name)
        else:
            PAGE.write_text(with_part(PAGE.read_text(), name, part(lines, conditions(load))))
    if failed:
        raise SystemExit(f"failed, and not in {PAGE.relative_to(ROOT)}: {', '.join(failed)}")


def quiet_load() -> float:
    """Wait until the machine is idle, for five minutes at most; return the load of the last minute."""
    deadline = time.monotonic() + WAIT_SECONDS
    while os.getloadavg()[0] > QUIET and time.monotonic() < deadline:
        time.sleep(5)
    return os.getloadavg()[0]


def run(module: str, arguments: Sequence[str]) -> tuple[list[str], int]:
    """Run a benchmark, and show what it prints; return its lines and its exit code."""
    lines = []
    running = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        say(line.rstrip("\n"))
        lines.append(line.rstrip("\n"))
    return lines, running.wait()


def conditions(load: float) -> str:
    """When, on which commit and on which machine a benchmark ran."""
    others = _git("status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    commit = _git("rev-parse", "--short", "HEAD") + (" with changes" if others else "")
    return f"{date.today():%-d %B %Y}, commit {commit}, {os.cpu_count()} cores, load {load:.1f} at the start."


def part(lines: Iterable[str], measured: str) -> str:
    """The text of a benchmark's part: its tables, and the figures of its last line.

    Args:
        lines: what the benchmark printed.
        measured: the conditions.
    """
    text = [f"Measured on {measured}"]
    before = ""
    for line in lines:
        if line.startswith("|"):
            text += [line] if before.startswith("|") else ["", line]
        before = line
    figures = json.loads(before.removeprefix("RESULT "))
    text += ["", "Figures: " + ", ".join(f"`{name}` {value}" for name, value in figures.items()) + "."]
    return "\n".join(text)


def with_part(page: str, name: str, text: str) -> str:
    """The page with another text in a benchmark's part.

    Raises:
        ValueError: the page has no such part.
    """
    marked = re.compile(rf"(<!-- measured {name} -->\n).*?(<!-- /measured {name} -->)", re.DOTALL)
    if not marked.search(page):
        raise ValueError(f"{PAGE.relative_to(ROOT)} has no part between <!-- measured {name} --> marks")
    return marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
