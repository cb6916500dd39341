"""An attack with foreign models through MLflow's port, which needs no key."""

import json
import os
import time

from mlflow import MlflowClient

from dosel.registry.projection import PRODUCTION
from dosel.usecases.covertype import COVERTYPE
from tests.attack.bodies import JSON, ROW
from tests.attack.target import Attack, Outcome, Target, ask

FOLLOWED_SECONDS = 5.0
"""Seconds to wait: several times as long as the API needs to follow an alias."""


def moves_the_alias(target: Target) -> Outcome:
    """Create versions without a verdict, move Production, a family's alias and the stage to each, and predict."""
    found, name = Outcome(), COVERTYPE.model_name
    os.environ.update(target.environment)
    client = MlflowClient(target.environment["MLFLOW_TRACKING_URI"])
    good = client.get_model_version_by_alias(name, PRODUCTION)
    for run in (good.run_id, "0" * 32, "no' OR '1'='1", None):
        made = client.create_model_version(name, good.source, run, model_id=good.source.rpartition("/")[2])
        for alias in (PRODUCTION, COVERTYPE.families[0].name):
            client.set_registered_model_alias(name, alias, made.version)
        client.transition_model_version_stage(name, made.version, "Production", archive_existing_versions=True)
        until = time.monotonic() + FOLLOWED_SECONDS
        while time.monotonic() < until:
            for path in ("/predict", f"/predict/covertype?model={COVERTYPE.families[0].name}"):
                status, answer = ask(target.port, "POST", path, ROW, JSON)
                found.answers[status] += 1
                served = json.loads(answer).get("model", {}).get("version") if status == "200" else None
                found.foreign_models_served += served == int(made.version)
            time.sleep(0.1)
    return found


ATTACKS = (Attack("versions that nobody judged", "have one of them answer", moves_the_alias),)
