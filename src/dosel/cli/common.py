"""Shared by the commands: settings, the actor, arguments."""

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    # `dosel --help` needs no settings, and importing them takes longer than the rest.
    from dosel.settings import Settings

UseCaseName = Annotated[str, typer.Argument(help="Name of the use case.")]


def load_settings() -> "Settings":
    """Settings from the environment, with defaults from the project's `.env`."""
    from dotenv import dotenv_values

    from dosel.embedded.services import ROOT
    from dosel.settings import Settings

    for key, value in dotenv_values(ROOT / ".env").items():
        if value is not None:
            os.environ.setdefault(key, value)
    os.environ.setdefault("DOSEL_HOME", str(ROOT / ".dosel"))
    # Before anything imports mlflow, which would note this machine in the user's home.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return Settings.load()


def actor() -> str:
    """The actor for the ledger: the name of a key if keys are declared, and otherwise that of the login."""
    name = holder()
    return f"API key {name}" if name else f"command line, {getpass.getuser()}"


def holder() -> str | None:
    """The name of the key in DOSEL_API_KEY; None if the installation declares no keys.

    Raises:
        SettingsError: it declares keys, and this is none of them.
    """
    from dosel.errors import SettingsError

    settings = load_settings()
    if not settings.promote_key_names:
        return None
    name = settings.promote_key_names.get(settings.api_key)
    if name is None:
        raise SettingsError(
            "DOSEL_API_KEY: expected a key of DOSEL_PROMOTE_KEYS, since keys are declared; set it to your own key"
        )
    return name


@contextmanager
def logged() -> Iterator[None]:
    """Show dosel's log lines during the block."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dosel").setLevel(logging.INFO)
    yield
