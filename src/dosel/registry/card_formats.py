"""A model card as Markdown, as JSON values and as a CycloneDX ML-BOM."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import dosel
from dosel.registry.card import Card, Figure

_SPECIAL = re.compile(r"([\\`*\[\]<>|#&~$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.)")


def as_json(card: Card) -> dict[str, Any]:
    """The card as JSON values."""
    return asdict(card) | {"created_at": card.created_at.isoformat()}


def as_markdown(card: Card) -> str:
    """The card as GitHub-flavoured Markdown. Text from elsewhere is escaped: it makes no link, image or HTML."""
    return "\n".join(_lines(card)).rstrip() + "\n"


def as_cyclonedx(card: Card) -> dict[str, Any]:
    """The card as a bill of materials with one machine-learning model: CycloneDX 1.6 (ECMA-424).

    Its serial number follows from the version and its files, so that the same version always has the same.
    """
    name = f"{card.model}@{card.version}"
    identity = f"dosel:{name}:{card.lineage.get('MLflow run', '')}:{card.lineage.get('manifest (SHA-256)', '')}"
    model = {
        "type": "machine-learning-model",
        "bom-ref": name,
        "name": card.model,
        "version": str(card.version),
        "description": f"{card.title}. {card.summary}",
        "modelCard": _model_card(card),
        "components": [
            {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for path, digest in sorted(card.files.items())
        ],
        "properties": _properties(card.lineage),
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": card.created_at.isoformat(),
            "tools": {"components": [{"type": "application", "name": "dosel", "version": dosel.__version__}]},
        },
        "components": [model],
    }


def escaped(text: str) -> str:
    """Text on one line, without what Markdown would read as more than text."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _lines(card: Card) -> Iterator[str]:
    yield f"# {escaped(card.model)} version {card.version}"
    yield f"\nMade {card.created_at:%Y-%m-%d %H:%M} UTC. dosel {dosel.__version__} generated this card."
    yield "\n## Intended use\n"
    classes = ", ".join(escaped(label) for label in card.classes)
    yield f"{escaped(card.title)}. {escaped(card.summary)} It predicts {escaped(card.target)}: {classes}."
    yield from _table(
        ("input", "column", "accepted", "may be missing"),
        ((i.title, i.name, i.expected, "yes" if i.optional else "no") for i in card.inputs),
    )
    yield f"\n## Data\n\nRows: {escaped(card.source)}. A salted hash of a row's inputs chose the held-out rows."
    yield f"\n## Figures\n\nOn held-out rows. The intervals have a confidence of {card.confidence:.0%}."
    yield from _table(("figure", "of", "value", "interval", "rows"), map(_cells, card.figures))
    yield "\n## Limits\n"
    yield from (f"- {escaped(limit)}." for limit in card.limits)
    yield f"\n## Gate\n\n{escaped(card.gate or 'The gate has not judged this version')}."
    if card.rules:
        rules = ((rule.name, "holds" if rule.holds else "fails", rule.words) for rule in card.rules)
        yield from _table(("rule", "verdict", "figures"), rules)
    yield "\n## Lineage"
    yield from _table(("what", "value"), card.lineage.items())
    if card.files:
        yield "\n## Files"
        yield from _table(("file", "SHA-256"), sorted(card.files.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"\n| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(escaped, row))} |"


def _cells(figure: Figure) -> tuple[str, ...]:
    of = figure.slice or "all"
    if figure.value is None:
        return figure.name, of, "withheld", "", "few"
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return figure.name, of, f"{figure.value:.3f}", interval, "" if figure.rows is None else f"{figure.rows:,}"


def _model_card(card: Card) -> dict[str, Any]:
    family = card.lineage.get("family")
    of_rows = {name: value for name, value in card.lineage.items() if name in ("rows (SHA-256)", "batches", "split")}
    rows = f"{card.lineage.get('training rows', 'unknown')} training rows, "
    rows += f"{card.lineage.get('held-out rows', 'unknown')} held-out rows"
    dataset = {
        "type": "dataset",
        "name": "clean rows",
        "description": f"{card.source}: {rows}",
        "contents": {"properties": _properties(of_rows)},
    }
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "classification",
            **({"architectureFamily": family} if family else {}),
            "datasets": [dataset],
            "inputs": [{"format": f"{i.name}: {i.expected}{', or nothing' * i.optional}"} for i in card.inputs],
            "outputs": [{"format": f"{card.target}: one of {', '.join(card.classes)}, with probabilities"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [_metric(f) for f in card.figures if not f.is_withheld]},
        "considerations": {"useCases": [card.summary], "technicalLimitations": list(card.limits)},
    }


def _metric(figure: Figure) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": figure.name, "value": f"{figure.value:.6f}"}
    if figure.slice:
        metric["slice"] = figure.slice
    if figure.low is not None and figure.high is not None:
        metric["confidenceInterval"] = {"lowerBound": f"{figure.low:.6f}", "upperBound": f"{figure.high:.6f}"}
    return metric


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"dosel:{name}", "value": value} for name, value in values.items()]
