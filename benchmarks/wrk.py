"""Load by wrk, and its results."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_SCRIPT = """
local file = io.open(%(body)s, "rb")
wrk.method, wrk.body = "POST", file:read("*all")
wrk.headers["Content-Type"] = "%(content_type)s"
file:close()
if os.getenv("PACE_MS") then
  delay = function() return tonumber(os.getenv("PACE_MS")) end
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('WRK {"requests": %%d, "us": %%d, "p50": %%d, "p99": %%d, "failed": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """Result of one round: requests per second, and milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Target:
    """A running service and the request to send."""

    name: str
    url: str
    script: Path

    @classmethod
    def posting(
        cls, folder: Path, name: str, url: str, body: bytes, content_type: str = "application/json"
    ) -> "Target":
        file = folder / f"{name}.body".replace(" ", "-")
        file.write_bytes(body)
        script = file.with_suffix(".lua")
        script.write_text(_SCRIPT % {"body": json.dumps(str(file)), "content_type": content_type})
        return cls(name, url, script)

    def load(self, seconds: float, connections: int, pace: float = 0.0) -> Load:
        """Send requests for some seconds.

        Args:
            pace: seconds that each connection waits between two requests.
        """
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
        command += ["-s", str(self.script), self.url]
        paced = os.environ | ({"PACE_MS": f"{1000 * pace:.0f}"} if pace else {})
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=paced)
        [line] = [line for line in done.stdout.splitlines() if line.startswith("WRK ")]
        found = json.loads(line.removeprefix("WRK "))
        rate = found["requests"] / (found["us"] / 1e6)
        return Load(rate, found["p50"] / 1000, found["p99"] / 1000, found["failed"])


def side_by_side(targets: list[Target], rounds: int, seconds: float, connections: int) -> dict[str, Load]:
    """Medians over `rounds` rounds. Each round runs every target, so that other load affects all of them."""
    found: dict[str, list[Load]] = {target.name: [] for target in targets}
    for target in targets:
        target.load(1, connections)
    for _ in range(rounds):
        for target in targets:
            found[target.name].append(target.load(seconds, connections))
    return {
        name: Load(
            median(load.rate for load in loads),
            median(load.p50_ms for load in loads),
            median(load.p99_ms for load in loads),
            sum(load.failed for load in loads),
        )
        for name, loads in found.items()
    }
