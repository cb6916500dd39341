"""A tenth of `make soak-ingest`, `make soak-registry`, `make soak-monitor` and `make soak-cluster`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import ingest

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

pytestmark = pytest.mark.soak


@pytest.mark.timeout(1200)
def test_kills_leave_every_acknowledged_batch_complete() -> None:
    tally = ingest.soak(KILLS, seed=1)
    assert tally.kills.total() == KILLS
    assert tally.acknowledged > 0
    assert (tally.lost, tally.doubled, tally.half) == (0, 0, 0)
    assert tally.in_transaction >= KILLS / 2, "most kills missed the transactions"


def test_races_and_kills_leave_one_version_in_production(schema: str, bare_environment: None) -> None:
    command = [sys.executable, "-m", "tests.soak.registry", "--share", "0.1", "--warehouse-url", schema]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert (result.pop("promotions"), result.pop("kills")) == (100, 20)
    assert result == dict.fromkeys(result, 0)


def test_kills_lose_no_truth_and_no_message(bare_environment: None) -> None:
    command = [sys.executable, "-m", "tests.soak.monitor", "--kills", str(KILLS)]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))["kills"] == KILLS


@pytest.mark.timeout(1200)
def test_kills_on_a_cluster_lose_no_candidate_and_change_no_model(bare_environment: None) -> None:
    command = [sys.executable, "-m", "tests.soak.cluster", "--kills", "4"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert sum(result["kills"].values()) == 4
    assert (result["lost"], result["doubled"], result["digest_differs"]) == (0, 0, 0)
