"""Shared by the commands: settings, the actor, arguments."""

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dosel.cli.output import visible
from dosel.usecases import ALL, of_model

if TYPE_CHECKING:
    # `dosel --help` needs no settings, and importing them takes longer than the rest.
    from dosel.registry.ledger import PromotionLedger
    from dosel.settings import Settings


def use_case_names(incomplete: str) -> list[str]:
    """The use cases whose names begin so, for the completion in a shell."""
    return [use_case.name for use_case in ALL if use_case.name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """The use cases and the registered models whose names begin so."""
    models = (use_case.model_name for use_case in ALL)
    return [*use_case_names(incomplete), *(name for name in models if name.startswith(incomplete))]


UseCaseName = Annotated[str, typer.Argument(help="Name of the use case.", autocompletion=use_case_names)]
ModelName = Annotated[
    str, typer.Argument(help="Name of the registered model or of its use case.", autocompletion=model_names)
]


def load_settings() -> "Settings":
    """Settings from the environment, with defaults from the project's `.env`."""
    from dotenv import dotenv_values

    from dosel.embedded.services import ROOT
    from dosel.settings import Settings

    for key, value in dotenv_values(ROOT / ".env").items():
        if value is not None:
            os.environ.setdefault(key, value)
    os.environ.setdefault("DOSEL_HOME", str(ROOT / ".dosel"))
    # Before anything imports mlflow, which would write an identifier of this machine to the user's home.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return Settings.load()


def promotion_ledger(name: str) -> "tuple[str, PromotionLedger]":
    """The registered model's name and the ledger alone, which needs no MLflow."""
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger

    return of_model(name).model_name, PromotionLedger(connect(load_settings().warehouse_url))


def actor() -> str:
    """The actor for the ledger: the name of a key if promoters' keys are declared, otherwise that of the login."""
    name = holder()
    return f"API key {name}" if name else f"command line, {getpass.getuser()}"


def holder() -> str | None:
    """The name of the key in DOSEL_API_KEY; None if no promoter's key is declared.

    Raises:
        SettingsError: promoters' keys are declared, and this is none of them.
    """
    from dosel.errors import SettingsError

    settings = load_settings()
    if not settings.promote_key_names:
        return None
    name = settings.promote_key_names.get(settings.api_key)
    if name is None:
        raise SettingsError(
            "DOSEL_API_KEY: expected a key with the role promoter, since keys are declared; set it to your own key"
        )
    return name


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextmanager
def logged() -> Iterator[None]:
    """Show dosel's log lines during the block."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("dosel").setLevel(logging.INFO)
    yield
