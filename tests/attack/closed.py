"""The API with a closed use case: `app.server tests.attack.closed:create_app`."""

from dataclasses import replace

from fastapi import FastAPI

from app.main import build_app
from app.serving.follower import ModelFollower
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE

CLOSED = replace(COVERTYPE, expose_training_rows=False)


def create_app() -> FastAPI:
    settings = Settings.load()
    return build_app(settings, ModelFollower(settings, (CLOSED,)), (CLOSED,), CLOSED)
