"""Starts the platform, shows the pipeline's progress, and stops it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.markup import escape

from dosel.client import Client
from dosel.embedded import preflight, storage_services
from dosel.embedded.airflow_runs import AirflowRuns
from dosel.embedded.home import SOURCE, Home
from dosel.embedded.processes import GONE, Processes, end_on_signals, ignore_signals
from dosel.embedded.services import (
    ROOT,
    Service,
    environment,
    make_bucket,
    preparation,
    services,
    write_airflow_passwords,
)
from dosel.errors import ServiceError, StartupError
from dosel.settings import Settings
from dosel.terminal import Bars
from dosel.usecases import REFUSED, chosen

POLL_SECONDS = 0.5
HEALTH_SECONDS = 180
PREPARATION_SECONDS = 120
CHECK_SECONDS = 120


class ServiceState(NamedTuple):
    """Whether a service runs; `log` is its file."""

    service: str
    state: str
    address: str
    log: str
    healthy: bool


class Platform:
    """The embedded platform of one installation."""

    def __init__(self, settings: Settings, caller: dict[str, str], console: Console) -> None:
        self._settings = settings
        self._caller = caller
        self._console = console
        self._home = Home(settings.home)
        self._processes = Processes(settings.home)
        self._services = services(settings)
        self._use_cases = chosen(settings.use_cases)
        self._began = time.monotonic()

    def up(self, detach: bool) -> list[str]:
        """Start the services that are not running, and return when every use case answers; attached, when stopped.

        Interrupted before that, it stops what it has started. A use case whose pipeline fails does not stop the others.

        Returns:
            The names of the use cases that do not answer, since their pipelines failed.

        Raises:
            StartupError: a precondition fails, a service does not start, or all pipelines fail.
            KeyboardInterrupt: interrupted before every use case answers.
        """
        preflight.check_folder(self._settings.home)
        self._check_use_cases()
        answered = False
        with ExitStack() as start:
            start.enter_context(self._home.starting())
            missing = self._missing()
            try:
                end_on_signals()
                self._start(missing)
                failed = self._follow()
                answered = True
                start.close()
                if not detach:
                    self._console.print("Ctrl-C stops everything.\n" if missing else "Ctrl-C leaves it running.\n")
                    self._watch()
            except BaseException as error:
                self._end(missing)
                if not (answered and isinstance(error, KeyboardInterrupt)):
                    raise
        return failed

    def _missing(self) -> list[Service]:
        """The services to start. Ends what a killed service left behind, and refuses what prevents a start.

        Raises:
            StartupError: the platform runs with other settings, or a precondition fails.
        """
        self._caller = self._home.resumed(self._caller)
        missing = [service for service in self._services if self._processes.leader(service.name) is None]
        if len(missing) < len(self._services) and (differences := self._home.differences(self._caller)):
            raise StartupError(
                f"the platform is running with other settings ({'; '.join(differences)}); "
                "stop it with `make down` first"
            )
        if all(service.name != "api" for service in missing) and (unknown := self._unknown_to_the_api()):
            late = f"the platform was started before {', '.join(unknown)} was declared; stop it with `make down` first"
            if not missing:
                raise StartupError(late)
            # A service that ended is started again all the same.
            self._console.print(f"[yellow]{escape(late)}[/]", highlight=False)
        # Processes that a killed service left behind would block the new one.
        self._processes.stop(service.name for service in missing)
        preflight.check(self._settings, missing)
        self._check_source()
        self._home.remember(self._caller)
        return missing

    def _check_use_cases(self) -> None:
        """Name each refused file, and stop if no use case can run or its tables differ from its declaration."""
        from dosel.db.comparison import compare_all

        for refused in REFUSED:
            more = f" (and {len(refused.problems) - 1} more)" if len(refused.problems) > 1 else ""
            line = f"{refused.file}: {refused.problems[0]}{more}; `dosel check` lists all problems"
            self._console.print(f"[yellow]not used:[/] {escape(line)}", highlight=False)
        if not self._use_cases:
            raise StartupError("no use case can run: correct the files in src/dosel/usecases/")
        differing = [c for c in compare_all(self._settings.warehouse_url, self._use_cases) if c.differences]
        if differing:
            raise StartupError("\n".join(map(str, differing)))

    def down(self) -> None:
        """Stop everything that is running."""
        started = self._processes.started()
        self._stop(started)
        if not started:
            self._console.print("nothing was running")

    def forget(self) -> None:
        """Remove everything the platform wrote; it must not be running."""
        if any(self._processes.leader(service.name) for service in self._services):
            raise StartupError("the platform is running; stop it with `make down` first")
        storage_services.forget(self._settings.home)
        self._home.forget()

    def states(self) -> list[ServiceState]:
        """The state of each service."""
        return [self._state(service) for service in self._services]

    def _state(self, service: Service) -> ServiceState:
        running = self._processes.leader(service.name) is not None
        healthy = running and self._healthy(service)
        state = "healthy" if healthy else "running, not healthy" if running else "not running"
        log = str(self._processes.log(service.name))
        return ServiceState(service.title, state, service.address, log, healthy)

    def in_production(self) -> list[str]:
        """A line for each model: its version in Production, or the one that answers while MLflow does not; none if the
        API does not answer."""
        client = Client(self._settings.api_url, timeout=5, attempts=1, key=self._settings.own_key)
        try:
            return [_in_production(model) for model in client.models()]
        except ServiceError:
            pass
        try:
            ready = client.readiness()
        except ServiceError:
            return []
        return [_answering(name, state, name in ready["stale"]) for name, state in ready["use_cases"].items()]

    def logs(self, name: str | None) -> list[Path]:
        """The log files of all services, or of the one with this name or title."""
        asked = [service for service in self._services if name in (None, service.name, service.title)]
        if not asked:
            names = ", ".join(service.name for service in self._services)
            raise StartupError(f"no service {name!r}; there are: {names}")
        return [log for service in asked if (log := self._processes.log(service.name)).exists()]

    def _check_source(self) -> None:
        """If the settings name another source than the last start's, move the data of the last one aside."""
        differences = self._home.differences(self._caller, SOURCE)
        if not differences or "data-api" not in {service.name for service in self._services}:
            return
        check = subprocess.run(
            [sys.executable, "-m", "external"],
            cwd=ROOT,
            env=environment(self._settings, self._caller) | {"DATA_API_FETCH": "never"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
        if check.returncode != 0:
            raise StartupError((check.stderr.strip().splitlines() or ["the data API cannot start"])[-1])
        if not self._home.has_rows():
            return
        changed = f"the settings name another source of rows ({'; '.join(differences)})"
        if not self._settings.warehouse_url.startswith(f"sqlite:///{self._settings.home}"):
            raise StartupError(f"{changed}: name an empty data store in DOSEL_WAREHOUSE_URL, or undo the change")
        aside = self._home.set_aside()
        self._console.print(
            f"{escape(changed)}: starting over.\n"
            f"The previous data stays in its own folder: DOSEL_HOME={escape(str(aside))} make up continues with it, "
            "make clean removes it.",
            highlight=False,
        )

    def _unknown_to_the_api(self) -> list[str]:
        """Use cases that were declared after the API started."""
        try:
            known = Client(self._settings.api_url, timeout=5, attempts=1, key=self._settings.own_key).use_cases()
        except ServiceError:
            return []
        return sorted({use_case.name for use_case in self._use_cases} - {use_case["name"] for use_case in known})

    def _start(self, missing: list[Service]) -> None:
        if not missing:
            self._console.print("everything is already running")
            return
        write_airflow_passwords(self._settings)
        env = environment(self._settings, self._caller)
        (self._settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
        make_bucket(self._settings)
        airflow = [service for service in missing if service.name.startswith("airflow")]
        with self._console.status("starting the services"):
            # Airflow takes longest to start, so its database is prepared first.
            with self._preparing_airflow(env) if airflow else nullcontext():
                for service in missing:
                    if service not in airflow:
                        self._processes.start(service, env)
            for service in airflow:
                self._processes.start(service, env)
            # Imported while the services start: later, that would take so long that the first batch is not seen.
            import_module("dosel.embedded.summary")
            waiting = [service for service in self._services if service.health]
            deadline = time.monotonic() + HEALTH_SECONDS
            while waiting:
                for service in list(waiting):
                    if self._healthy(service):
                        waiting.remove(service)
                        self._console.print(f"[green]✓[/] {service.title:<16} {service.page}  ({self._seconds()})")
                self._check_alive()
                if time.monotonic() > deadline:
                    late = waiting[0]
                    raise StartupError(
                        f"{late.title} is not healthy after {HEALTH_SECONDS} s.\n{self._processes.tail(late.name)}"
                    )
                time.sleep(POLL_SECONDS)

    @contextmanager
    def _preparing_airflow(self, env: dict[str, str]) -> Iterator[None]:
        """Prepare Airflow's database while the block runs, and wait until that is done."""
        log = self._processes.log("airflow-prepare")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *preparation(self._settings)],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PREPARATION_SECONDS
        try:
            yield
            while process.poll() is None and time.monotonic() < deadline:
                # Fail at once if a service has stopped, without waiting for the preparation.
                self._check_alive()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise StartupError(
                f"the preparation of Airflow's database failed.\n{self._processes.tail('airflow-prepare')}"
            )

    def _follow(self) -> list[str]:
        """Show the pipeline's progress until each use case has answered a prediction, or its pipeline has failed.

        Returns:
            The names of the use cases that have not answered.
        """
        # Imported here: it takes seconds, which `down`, `status` and `logs` need not wait.
        from dosel.embedded.first_answers import FirstAnswers
        from dosel.embedded.summary import summary

        services_seconds = time.monotonic() - self._began
        self._print_source()
        first = FirstAnswers(self._use_cases, self._settings, self._seconds)
        with Bars(self._console) as bars:
            while not first.is_over:
                for line in first.poll():
                    self._console.print(f"[dim]{self._seconds():>6}[/]  {escape(line)}", highlight=False)
                bars.show(first.bars())
                self._check_alive()
                if first.quiet_seconds > self._settings.patience:
                    late = f"no progress for {self._settings.patience:g} s (DOSEL_PATIENCE)"
                    first.give_up(late, self._processes.tail("airflow-scheduler"))
                time.sleep(POLL_SECONDS)
        if not first.answers:
            raise StartupError("\n".join(first.failed.values()))
        for line in summary(self._settings, self._services, first, services_seconds):
            self._console.print(line, highlight=False)
        for name, reason in first.failed.items():
            self._console.print(f"\n[red]{name} does not answer[/]: {escape(reason)}", highlight=False)
        return list(first.failed)

    def _watch(self) -> None:
        """Show the pipeline's progress until a signal arrives."""
        from dosel.embedded.progress import Progress

        following = [Progress(use_case, self._settings) for use_case in self._use_cases]
        for progress in following:
            progress.poll()
        with Bars(self._console) as bars:
            while True:
                time.sleep(5 * POLL_SECONDS)
                self._check_alive()
                for progress in following:
                    for line in progress.poll():
                        self._console.print(escape(line), highlight=False)
                bars.show(bar for progress in following for bar in progress.bars())

    def _print_source(self) -> None:
        with suppress(httpx.HTTPError, ValueError):
            health = httpx.get(f"{self._settings.data_api_url}/health", timeout=5).raise_for_status().json()
            self._console.print(f"  the data API serves {health.get('rows', 0):,} rows, {health.get('source', '?')}")

    def _healthy(self, service: Service) -> bool:
        try:
            if service.name.startswith("airflow"):
                return not AirflowRuns(self._settings).unhealthy()
            return httpx.get(service.url + service.health, timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _check_alive(self) -> None:
        if self._console.is_terminal and not os.isatty(sys.stdout.fileno()):
            # A closed terminal signals only its session's leader, which may be another process.
            raise KeyboardInterrupt
        for service in self._services:
            if service.name in self._processes.started() and self._processes.leader(service.name) is None:
                raise StartupError(f"{service.title} stopped unexpectedly.\n{self._processes.tail(service.name)}")

    def _end(self, started: list[Service]) -> None:
        """Stop what this start has started; signals are ignored, so that a second Ctrl-C does not leave half of it."""
        ignore_signals()
        with suppress(*GONE):
            self._console.print("\nstopping …")
        self._stop([service.name for service in started])

    def _stop(self, names: list[str]) -> None:
        forced = self._processes.stop(names)
        with suppress(*GONE):
            for name in names:
                self._console.print(f"{name:<24} stopped" + (" (killed)" if name in forced else ""))

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"


def _answering(name: str, state: dict[str, Any], stale: bool) -> str:
    number = f"version {state['version']} answers" if state["ready"] else "no version answers"
    marked = ", marked stale" if stale else ""
    return f"{name}: {number}{marked}" + (f"; the API waits for {reason}" if (reason := state["waiting_for"]) else "")


def _in_production(model: dict[str, Any]) -> str:
    current = [v for v in model.get("versions", []) if v.get("in_production")]
    number = f"version {current[0]['version']}" if current else "nothing yet"
    lines = [f"{model.get('name')}: {number} in Production"]
    if reason := model.get("waiting_for"):
        lines.append(f"  the API does not follow it, and waits for {reason}")
    return "\n".join([*lines, *(f"  {note}" for note in model.get("trouble", []))])
