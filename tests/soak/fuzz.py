"""Random requests against a running API.

    make fuzz                    10,000 cases; CASES=500 for a short one

Schemathesis makes them from the OpenAPI document, acceptable ones and others. A fault of the service, or an answer that
the document does not know, ends it with the request that does it again.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from benchmarks.installation import Installation, installation, say
from benchmarks.serving import uvicorn

CASES = 10_000
READERS_CASES = 500
"""With so many cases, the readers of JSON and CSV get as many as in an ordinary test run; with more, as many more."""

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
"""A fault of the service is a 500, which no call documents; 503 some do, as what has no model yet answers."""


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    scale = {"FUZZ_SCALE": str(max(1, cases // READERS_CASES))}
    readers = [sys.executable, "-m", "pytest", "-q", "tests/unit/test_row_readers.py", "--timeout", "3600"]
    wrong = subprocess.run(readers, env=os.environ | scale, check=False).returncode
    with installation((5, 5)) as here:
        wrong = wrong or fuzz(here, cases)
    sys.exit(wrong)


def fuzz(here: Installation, cases: int) -> int:
    """Run the cases; return an exit code."""
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, _, _):
        calls = sum(len(methods) for methods in httpx.get(f"{url}/openapi.json").json()["paths"].values())
        schemathesis = Path(sys.executable).with_name("schemathesis")
        command = [
            *(str(schemathesis), "run", f"{url}/openapi.json", "--checks", CHECKS),
            *("--max-examples", str(max(1, cases // calls)), "--phases", "examples,coverage,fuzzing"),
            *("--mode", "all", "--seed", "1", "--request-timeout", "30", "--generation-database", ":memory:"),
        ]
        say(" ".join(command[1:]))
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
