"""A tenth of `make soak-registry` where it is hardest, on servers: many at once, and kills between any two steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.soak
def test_whatever_happens_one_version_is_in_production(schema: str, bare_environment: None) -> None:
    command = [sys.executable, "-m", "benchmarks.soak_registry", "--share", "0.1", "--warehouse-url", schema]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert (result.pop("promotions"), result.pop("kills")) == (100, 20)
    assert result == dict.fromkeys(result, 0)
