"""Registered models, Production and the loaded versions: calls that wait for MLflow, in their own threads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from app.http.problems import documented
from app.routes.dependencies import FollowerDep, in_queue, tagged_router
from app.schemas.models import HoldoutInfo, Loaded, Model, ModelInfo, ModelNames, Models, Version
from app.schemas.use_cases import UseCaseInfo, UseCases
from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from app.serving.work_queue import Pauses, SharedCalls, WorkQueue
from dosel.closed import shown
from dosel.errors import RegistryError, WarehouseError
from dosel.rows.shortened import cut
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.ledger import Promotion
    from dosel.registry.store import ModelVersion

CHECK_SECONDS = 30.0
"""How long a request waits for a read from MLflow, and for a check that may load a version."""


def router(
    use_cases: Sequence[UseCase], default: UseCase | None, needs_key: bool, reads: WorkQueue, pauses: Pauses
) -> APIRouter:
    made = tagged_router("models")
    checks = SharedCalls("checks of the registry", CHECK_SECONDS, pauses)
    described = [UseCaseInfo.of(use_case, default=use_case is default) for use_case in use_cases]
    known = UseCases(needs_key=needs_key, use_cases=described)

    @made.get("/use-cases", summary="The use cases, with all that a form needs")
    async def list_use_cases() -> UseCases:
        return known

    @made.get("/models", summary="The registered models with their versions", responses=documented(503))
    @in_queue(reads)
    def list_models(follower: FollowerDep) -> Models:
        return Models(models=[_model(follower, use_case) for use_case in use_cases])

    @made.get("/listar_modelos", summary="Names of the registered models, for older clients", responses=documented(503))
    @in_queue(reads)
    def list_names(follower: FollowerDep) -> ModelNames:
        registry = follower.registry()
        return ModelNames(modelos=[u.model_name for u in use_cases if registry.versions(u.model_name)])

    @made.get(
        "/model-info",
        summary="The version in Production and the loaded version, with metrics and lineage",
        responses=documented(404, 503),
    )
    @in_queue(reads)
    def show_model(
        follower: FollowerDep,
        use_case: Annotated[str, Query(description="Name of the use case.")] = default.name if default else "",
        model: Annotated[
            str | None, Query(description="A family, to show its newest version too; or the registered model.")
        ] = None,
    ) -> ModelInfo:
        asked = follower.named(use_case)
        newest = None
        if model and asked.family(model):
            newest = (follower.of_family(asked, model) or follower.load_family(asked, model)).version
        elif model:
            follower.check_model(asked, cut(model))
        loaded = follower.in_production(asked)
        production, read_at, entry, looks = loaded.version, loaded.loaded_at, None, None
        try:
            registry = follower.registry()
            # First, since the ledger can be read while MLflow is down.
            entry = registry.last_promotion(asked.model_name)
            looks = HoldoutInfo.of(registry.holdout(asked))
            production = registry.production(asked.model_name) or production
            read_at = datetime.now(UTC)
        except (RegistryError, WarehouseError):
            # The answer is then what was read when the model was loaded.
            pass
        return ModelInfo(
            use_case=asked.name,
            name=asked.model_name,
            production=Version.of(asked, production, in_production=True),
            since=entry.at if entry and entry.to_version == production.version else None,
            family=Version.of(asked, newest, newest.version == production.version) if newest else None,
            loaded=_describe(follower, asked, loaded),
            holdout=looks,
            read_at=read_at,
        )

    @made.post(
        "/warmup",
        summary="Ask the registry now and load the version in Production",
        responses=documented(404, 503),
    )
    async def warm_up(
        follower: FollowerDep,
        use_case: Annotated[str | None, Query(description="Name of one use case; by default all.")] = None,
    ) -> dict[str, Loaded]:
        """Returns the loaded versions by use case. Requests that wait for the same check share it."""
        asked = [follower.named(use_case)] if use_case else list(use_cases)
        await checks.run(use_case or "", partial(follower.poll_now, asked))
        return {u.name: loaded for u in asked if (loaded := _loaded(follower, u))}

    return made


def _model(follower: ModelFollower, use_case: UseCase) -> Model:
    registry, name = follower.registry(), use_case.model_name
    entry = registry.last_promotion(name)
    return Model(
        name=name,
        use_case=use_case.name,
        loaded=_loaded(follower, use_case),
        versions=[Version.of(use_case, v, is_entered(entry, v)) for v in registry.versions(name)],
        trouble=shown(use_case, registry.open_notes(name)),
        waiting_for=follower.waiting_for(use_case) or None,
    )


def is_entered(entry: "Promotion | None", version: "ModelVersion") -> bool:
    """Whether the ledger's last entry put a version into Production."""
    known = entry.evidence.to_run if entry else None
    return entry is not None and entry.to_version == version.version and known in (None, version.run_id)


def _loaded(follower: ModelFollower, use_case: UseCase) -> Loaded | None:
    loaded = follower.loaded(use_case)
    return None if loaded is None else _describe(follower, use_case, loaded)


def _describe(follower: ModelFollower, use_case: UseCase, loaded: LoadedModel) -> Loaded:
    version, predictor = loaded.version, loaded.predictor
    return Loaded(
        model=version.name,
        version=version.version,
        run_id=version.run_id,
        loaded_at=loaded.loaded_at,
        form=predictor.backend,
        fallback=predictor.fallback_reason or None,
        stale=follower.stale(use_case),
    )
