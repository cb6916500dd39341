"""What is registered, what is in Production and what is loaded. Plain `def`: these wait for MLflow."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from app.http.problems import documented
from app.http.validation_errors import cut
from app.routes.dependencies import FollowerDep
from app.schemas.models import Loaded, Model, ModelInfo, ModelNames, Models, Version
from app.schemas.use_cases import UseCaseInfo, UseCases
from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from dosel.errors import RegistryError, WarehouseError
from dosel.usecases import UseCase


def router(use_cases: Sequence[UseCase], default: UseCase) -> APIRouter:
    made = APIRouter(tags=["models"])
    known = UseCases(use_cases=[UseCaseInfo.of(use_case, default=use_case is default) for use_case in use_cases])

    @made.get("/use-cases", summary="What this installation serves, with all a form needs")
    async def list_use_cases() -> UseCases:
        return known

    @made.get("/models", summary="What is registered, version by version", responses=documented(503))
    def list_models(follower: FollowerDep) -> Models:
        registry = follower.registry()
        return Models(
            models=[
                Model(
                    name=use_case.model_name,
                    use_case=use_case.name,
                    loaded=_loaded(follower, use_case),
                    versions=[Version.of(version) for version in registry.versions(use_case.model_name)],
                    trouble=registry.open_notes(use_case.model_name),
                )
                for use_case in use_cases
            ]
        )

    @made.get("/listar_modelos", summary="Names of the registered models, for older clients", responses=documented(503))
    def list_names(follower: FollowerDep) -> ModelNames:
        registry = follower.registry()
        return ModelNames(modelos=[u.model_name for u in use_cases if registry.versions(u.model_name)])

    @made.get(
        "/model-info",
        summary="What is in Production and what is loaded here, with metrics and lineage",
        responses=documented(404, 503),
    )
    def show_model(
        follower: FollowerDep,
        use_case: Annotated[str, Query(description="Name of the use case.")] = default.name,
        model: Annotated[
            str | None, Query(description="One of its families, to be told of that, too; or its registered model.")
        ] = None,
    ) -> ModelInfo:
        asked = follower.named(cut(use_case))
        family = None
        if model and asked.family(model):
            served = follower.of_family(asked, model) or follower.load_family(asked, model)
            family = Version.of(served.version)
        elif model:
            follower.check_model(asked, cut(model))
        served = follower.in_production(asked)
        production, read_at, since = served.version, served.loaded_at, None
        try:
            registry = follower.registry()
            production = registry.production(asked.model_name) or production
            read_at = datetime.now(UTC)
            entry = registry.last_promotion(asked.model_name)
            since = entry.at if entry and entry.to_version == production.version else None
        except (RegistryError, WarehouseError):
            # What was read when the model was loaded still tells what answers.
            pass
        return ModelInfo(
            use_case=asked.name,
            name=asked.model_name,
            production=Version.of(production),
            since=since,
            family=family,
            loaded=_loaded_now(follower, asked, served),
            read_at=read_at,
        )

    @made.post(
        "/warmup",
        summary="Look at the registry now and load what is in Production",
        responses=documented(404, 503),
    )
    def warm_up(
        follower: FollowerDep,
        use_case: Annotated[str | None, Query(description="Name of one use case; left out: all of them.")] = None,
    ) -> dict[str, Loaded]:
        """Answers what is loaded, by use case."""
        asked = [follower.named(cut(use_case))] if use_case else list(use_cases)
        follower.poll_now(asked)
        return {u.name: loaded for u in asked if (loaded := _loaded(follower, u))}

    return made


def _loaded(follower: ModelFollower, use_case: UseCase) -> Loaded | None:
    served = follower.loaded(use_case)
    return None if served is None else _loaded_now(follower, use_case, served)


def _loaded_now(follower: ModelFollower, use_case: UseCase, served: LoadedModel) -> Loaded:
    version, predictor = served.version, served.predictor
    return Loaded(
        model=version.name,
        version=version.version,
        run_id=version.run_id,
        loaded_at=served.loaded_at,
        form=predictor.backend,
        fallback=predictor.fallback_reason or None,
        stale=follower.stale(use_case),
    )
