"""The platform in Compose with its own project name and ports, called from outside as a user would."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "dosel-e2e"
EXTERNAL, PLATFORM = ("docker-compose-external.yaml",), ("docker-compose-p2.yaml",)
SETTINGS = dotenv_values(ROOT / ".env")

Found = TypeVar("Found")


def wait(what: str, look: Callable[[], Found | None], seconds: float) -> Found:
    """Repeat `look` until it returns a true value, and return that; errors of `look` are retried."""
    deadline = time.monotonic() + seconds
    trouble = "nothing"
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (httpx.HTTPError, subprocess.SubprocessError, LookupError, ValueError) as error:
            trouble = f"{type(error).__name__}: {error}"
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:.0f} s; the last look found {trouble}")


def compose_command() -> list[str]:
    """The command of Compose: Docker's plugin, or else the older `docker-compose`."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


@dataclass
class Stack:
    environment: dict[str, str]
    project: str = PROJECT
    command: Sequence[str] = field(default_factory=compose_command)
    token: str = ""

    def compose(self, files: Iterable[str], *arguments: str, timeout: float = 300) -> str:
        done = self.try_compose(files, *arguments, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def try_compose(
        self, files: Iterable[str], *arguments: str, timeout: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        named = [part for file in files for part in ("-f", file)]
        return subprocess.run(
            [*self.command, "-p", self.project, *named, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def setting(self, name: str) -> str:
        secret = ROOT / str(SETTINGS["DOSEL_SECRETS"]) / name
        return self.environment.get(name) or (secret.read_text().strip() if secret.exists() else str(SETTINGS[name]))

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.environment[port]}"

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Docker's data about the containers of a service, or of all services."""
        labels = [f"com.docker.compose.project={self.project}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        names = docker("ps", "--all", "--quiet", *filters).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *names)) if names else []
        return found

    def container(self, service: str) -> dict[str, Any]:
        (found,) = self.containers(service)
        return found

    def kill(self, service: str) -> str:
        """Kill the main process of a service from outside, as the kernel would, and return its start time."""
        state = self.container(service)["State"]
        os.kill(state["Pid"], signal.SIGKILL)
        return str(state["StartedAt"])

    def restarted(self, service: str, since: str) -> bool:
        state = self.container(service)["State"]
        return bool(state["StartedAt"] != since and state["Health"]["Status"] == "healthy")

    def left(self) -> dict[str, list[str]]:
        """The containers, volumes and networks that Docker has of this project."""
        label = ("--filter", f"label=com.docker.compose.project={self.project}", "--quiet")
        kinds = {"containers": ("ps", "--all"), "volumes": ("volume", "ls"), "networks": ("network", "ls")}
        return {kind: docker(*listing, *label).split() for kind, listing in kinds.items()}

    def unhealthy(self) -> dict[str, str]:
        """Containers that are unhealthy, or that exited although they should run."""
        found = {}
        for container in self.containers():
            state, policy = container["State"], container["HostConfig"]["RestartPolicy"]["Name"]
            well = state.get("Health", {}).get("Status") == "healthy" or (policy == "no" and state["ExitCode"] == 0)
            if not well:
                found[container["Name"]] = json.dumps(state)[:300]
        return found

    def airflow(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Call Airflow's API."""
        with httpx.Client(base_url=self.url("AIRFLOW_PORT"), timeout=20) as client:
            if not self.token:
                login = {
                    "username": self.setting("DOSEL_AIRFLOW_USER"),
                    "password": self.setting("DOSEL_AIRFLOW_PASSWORD"),
                }
                self.token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = client.request(method, f"/api/v2/{path}", headers=headers, **request).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """The runs of a DAG, newest first."""
        found = self.airflow("GET", f"dags/{dag}/dagRuns", params={"order_by": "-run_after"})
        runs: list[dict[str, Any]] = found["dag_runs"]
        return runs

    def newest_run(self, dag: str) -> dict[str, Any]:
        return self.runs(dag)[0]

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        found = self.airflow("GET", f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}


def have_docker() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
