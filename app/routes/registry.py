"""The promotion ledger, promotions and rollbacks: calls that wait for MLflow and the data store."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import WithJsonSchema

from app.http.problems import documented
from app.routes.approvals import waiting
from app.routes.dependencies import FollowerDep, KeyHolder, in_queue, of_model, tagged_router
from app.routes.models import is_entered
from app.schemas.history import (
    ApprovalRequest,
    GateInfo,
    History,
    LedgerEntry,
    ManifestInfo,
    NoteInfo,
    Promote,
    RollBack,
    VersionDetail,
    VersionNumber,
    for_export,
)
from app.schemas.models import HoldoutInfo, Version
from app.serving.work_queue import WorkQueue
from dosel.errors import ApprovalsMissing
from dosel.usecases import UseCase

CSV = "text/csv"

CHANGE_SECONDS = 60.0
"""How long a request waits for a read of the ledger, and for a promotion."""

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def router(use_cases: Sequence[UseCase], store_reads: WorkQueue, registry_reads: WorkQueue) -> APIRouter:
    """The routes.

    Args:
        store_reads: runs what needs the data store only.
        registry_reads: runs what asks MLflow, too.
    """
    made = tagged_router("registry")
    # Each takes the model's lock, so that more threads would only wait for each other.
    changes = WorkQueue("promotions", 1, 7, CHANGE_SECONDS)

    @made.get(
        "/models/{name}/history",
        summary="The promotion ledger: which version was in Production when, by whom and why",
        responses={**documented(404, 422, 503), 200: {"content": {CSV: {}}}},
        response_model=History,
    )
    @in_queue(store_reads)
    def show_history(
        name: str,
        request: Request,
        follower: FollowerDep,
        at: Annotated[
            Moment | None, Query(description="Only entries up to this ISO 8601 time; the default zone is UTC.")
        ] = None,
        format: Annotated[
            Literal["json", "csv"] | None, Query(description="By default the format that the header Accept names.")
        ] = None,
    ) -> History | Response:
        """With `at`, the last entry names the version that was in Production at that time."""
        from dosel.registry.export import as_csv, moment

        use_case = of_model(name, use_cases)
        model = use_case.model_name
        try:
            until = None if at is None else moment(at)
        except ValueError as error:
            raise HTTPException(422, f"at: {error}") from None
        registry = follower.registry()
        ledger = registry.ledger
        entries = ledger.history(model, until)
        if format == "csv" or (format is None and CSV in request.headers.get("accept", "")):
            named = {"Content-Disposition": f'attachment; filename="{model}-history.csv"'}
            return Response(
                as_csv(for_export(use_case, entry) for entry in entries),
                media_type=f"{CSV}; charset=utf-8",
                headers=named,
            )
        return History(
            model=model,
            at=until,
            production=entries[-1].to_version if entries else None,
            entries=[LedgerEntry.of(use_case, entry) for entry in entries],
            notes=[NoteInfo.of(use_case, note) for note in ledger.notes(model) if until is None or note.at <= until],
            holdout=HoldoutInfo.of(registry.holdout(use_case)),
        )

    @made.get(
        "/models/{name}/versions/{version}",
        summary="A version and its lineage: run, data, batches, code, manifest, gate",
        responses=documented(404, 422, 503),
    )
    @in_queue(registry_reads)
    def show_version(
        name: str, version: Annotated[VersionNumber, Path(description="Its number.")], follower: FollowerDep
    ) -> VersionDetail:
        use_case = of_model(name, use_cases)
        registry = follower.registry()
        found = registry.version(use_case.model_name, version)
        verdict = registry.verdict(found)
        return VersionDetail(
            model=use_case.model_name,
            use_case=use_case.name,
            version=Version.of(use_case, found, is_entered(registry.last_promotion(found.name), found)),
            manifest=ManifestInfo.of(use_case, registry.manifest(found)),
            gate=GateInfo.of(use_case, verdict.report if verdict else None),
            in_production=[
                LedgerEntry.of(use_case, entry)
                for entry in registry.ledger.history(use_case.model_name)
                if entry.to_version == version and entry.evidence.to_run in (None, found.run_id)
            ],
        )

    @made.post(
        "/models/{name}/promote",
        summary="Put a version into Production by hand",
        responses={**documented(400, 401, 403, 404, 408, 409, 413, 422, 503), 202: {"model": ApprovalRequest}},
        response_model=LedgerEntry,
    )
    @in_queue(changes)
    def promote(name: str, body: Promote, holder: KeyHolder, follower: FollowerDep) -> LedgerEntry | JSONResponse:
        """The gate does not judge; the version's files must match its manifest.

        If the use case declares that more people must agree, the answer is 202 with the request, and each of them
        sends the same call with a key of their own.
        """
        from dosel.monitor import shadowing

        use_case, registry = of_model(name, use_cases), follower.registry()
        version, actor = registry.version(use_case.model_name, body.version), f"API key {holder}"
        try:
            entry = shadowing.promote(use_case, registry, registry.ledger.engine, version, actor, body.reason, holder)
        except ApprovalsMissing as missing:
            return waiting(use_case, registry, missing)
        return LedgerEntry.of(use_case, entry)

    @made.post(
        "/models/{name}/rollback",
        summary="Put the previous version back into Production",
        responses=documented(400, 401, 403, 404, 408, 409, 413, 422, 503),
    )
    @in_queue(changes)
    def roll_back(name: str, body: RollBack, holder: KeyHolder, follower: FollowerDep) -> LedgerEntry:
        use_case = of_model(name, use_cases)
        entry = follower.registry().roll_back(use_case.model_name, f"API key {holder}", body.reason, body.to)
        return LedgerEntry.of(use_case, entry)

    return made
