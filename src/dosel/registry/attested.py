"""A version's figures as the ledger has them: anybody who can open MLflow can edit the copy there."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dosel.model import tags
from dosel.model.facts import current_names
from dosel.registry.ledger import PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.store import ModelVersion, Store
from dosel.registry.verdicts import Verdict


def read_version(store: Store, ledger: PromotionLedger, name: str, number: int) -> ModelVersion:
    """One version with its facts.

    Raises:
        ModelNotFound: there is no version with that number.
    """
    version = store.version(name, number)
    manifest = ledger.manifest(name, version.version, version.run_id)
    return with_facts(version, manifest, ledger.verdicts(name))


def with_facts(
    version: ModelVersion, manifest: Manifest | None, verdicts: Mapping[tuple[int, str], Verdict]
) -> ModelVersion:
    """The version with the training's facts and the gate's verdict from the ledger instead of MLflow's figures.

    A version without facts (vouched for, registered by an older dosel, or foreign) is not attested: it keeps MLflow's
    figures, which the gate still needs for a champion of an older dosel, and which are not to be shown. The gate's
    figures are the ledger's in any case.
    """
    verdict = verdicts.get((version.version, version.run_id))
    facts = manifest.facts if manifest else None
    known, metrics, params = (
        (facts.tags, facts.metrics, facts.params) if facts else (version.tags, version.metrics, version.params)
    )
    return replace(
        version,
        metrics={
            **{name: v for name, v in current_names(metrics).items() if not name.startswith("gate_")},
            **gate_metrics(verdict),
        },
        params=dict(params),
        tags={**{name: text for name, text in known.items() if name not in tags.OF_GATE}, **_gate_tags(verdict)},
        attested=facts is not None,
    )


def gate_metrics(verdict: Verdict | None) -> dict[str, float]:
    """The metrics and latencies of a verdict's report, under the names that MLflow shows."""
    report: Mapping[str, Any] = (verdict.report if verdict else None) or {}
    figures = {
        f"gate_{side}_{name}": score
        for side, scores in report.get("metrics", {}).items()
        for name, score in scores.items()
    }
    return figures | {f"gate_{side}_latency_ms": ms for side, ms in report.get("latency_ms", {}).items()}


def read_json(text: str | None) -> Any:
    """The value of a tag's JSON; None without a tag, or if the text is no JSON, as anybody in MLflow can edit it."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _gate_tags(verdict: Verdict | None) -> dict[str, str]:
    if verdict is None:
        return {}
    found = {tags.GATE: "passed" if verdict.passed else "refused", tags.GATE_REASON: verdict.reason}
    return found | dict((verdict.report or {}).get("backend_tags", {}))
