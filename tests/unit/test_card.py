"""Model cards: figures with intervals, withheld figures, escaped text, Markdown and CycloneDX."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dosel.model import tags
from dosel.model.facts import Facts
from dosel.model.fingerprint import declaration
from dosel.model.signature import sign
from dosel.registry.card import Card, Figure, card_of
from dosel.registry.card_formats import as_cyclonedx, as_json, as_markdown, escaped
from dosel.registry.manifests import Manifest
from dosel.registry.shadows import Outcome, ShadowEnd, ShadowRecord
from dosel.registry.store import ModelVersion
from dosel.registry.verdicts import Verdict
from dosel.signing import SigningKey
from dosel.usecases import UseCase
from dosel.usecases.employees import EMPLOYEES

RUN = "0" * 32
FACTS = Facts(
    metrics={"holdout_accuracy": 0.9, "holdout_f1_macro": float("nan")},
    params={"best_n_neighbors": "5", "cv": "3"},
    tags={
        tags.ROWS_TRAIN: "2800",
        tags.ROWS_TEST: "1200",
        tags.BATCH_IDS: "[1, 2]",
        tags.SEED: "7",
        tags.FAMILY: "knn",
    },
    declaration=declaration(EMPLOYEES),
)
MANIFEST = Manifest("employees_burnout", 3, RUN, {"model.skops": "a" * 64}, FACTS)
REPORT: dict[str, Any] = {
    "rows": 1200,
    "metrics": {"challenger": {"accuracy": 0.91234, "f1_macro": 0.87}},
    "intervals": {"accuracy": [0.89, 0.93], "f1_macro": [0.84, 0.9]},
    "recalled": {"0": [500, 550], "1": [400, 450], "2": [190, 200]},
    "groups": {"gender": {"Female": [610, 660], "Male": [480, 540]}},
    "rules": [{"name": "floor", "holds": True, "words": "0.8700; required: at least 0.7000", "figures": {}}],
}
VERSION = ModelVersion(
    "employees_burnout",
    3,
    RUN,
    datetime(2026, 11, 27, tzinfo=UTC),
    "",
    (),
    FACTS.metrics,
    FACTS.params,
    FACTS.tags,
    True,
)
OPEN = dataclasses.replace(EMPLOYEES, expose_training_rows=True)


def card(use_case: UseCase = EMPLOYEES, reason: str = "better: f1_macro 0.8700", **report: Any) -> Card:
    return card_of(use_case, VERSION, MANIFEST, Verdict(True, reason, REPORT | report))


def figures(made: Card) -> dict[tuple[str, str], Figure]:
    return {(figure.name, figure.slice): figure for figure in made.figures}


def test_figures_have_intervals_overall_by_class_and_by_declared_group() -> None:
    found = figures(card())
    assert list(found) == [
        ("accuracy", ""),
        ("F1, macro", ""),
        ("recall", "class Low"),
        ("recall", "class Medium"),
        ("recall", "class High"),
        ("accuracy", "gender: Female"),
        ("accuracy", "gender: Male"),
    ]
    assert found["accuracy", ""] == Figure("accuracy", "", 1200, 0.91, 0.9, 0.93)
    assert all(f.low is not None and f.high is not None and f.low < f.value < f.high for f in found.values() if f.value)
    assert found["accuracy", "gender: Male"].rows == 540


def test_a_version_that_the_gate_has_not_judged_has_the_figures_of_its_training() -> None:
    made = card_of(OPEN, VERSION, MANIFEST, None)
    [accuracy] = made.figures
    assert (accuracy.value, accuracy.rows) == (0.9, 1200)
    assert accuracy.low == pytest.approx(0.8817, abs=1e-3)
    assert made.gate is None
    assert any("has not judged" in limit for limit in made.limits)


def test_an_empty_interval_of_an_older_verdict_is_not_shown() -> None:
    perfect = {"accuracy": 1.0, "f1_macro": 1.0}
    empty = {metric: [1.0, 1.0] for metric in perfect}
    report = REPORT | {"rows": 113, "metrics": {"challenger": perfect}, "intervals": empty}
    found = figures(card_of(OPEN, VERSION, MANIFEST, Verdict(True, "better", report)))
    assert found["accuracy", ""].low == pytest.approx(0.967, abs=1e-3)
    assert found["F1, macro", ""].low is found["F1, macro", ""].high is None


@pytest.mark.parametrize(("outcome", "is_named"), [("refused", True), ("promoted", False)])
def test_a_version_that_live_rows_refused_says_so(outcome: Outcome, is_named: bool) -> None:
    """The gate's praise alone would have the next person promote it."""
    at = VERSION.created_at
    end = ShadowEnd(outcome, "shadow", "proven worse by 117 labelled rows")
    shadow = ShadowRecord(VERSION.name, 1, "challenger", VERSION.version, RUN, 2, 2, at, at, "a test", "", end=end)
    limits = card_of(OPEN, VERSION, MANIFEST, Verdict(True, "better", REPORT), [shadow]).limits
    said = "In shadow of version 2 it was refused: proven worse by 117 labelled rows"
    assert (said in limits) is is_named


def test_figures_that_can_be_edited_in_mlflow_are_left_out() -> None:
    made = card_of(OPEN, dataclasses.replace(VERSION, attested=False), None, None)
    assert made.figures == ()
    assert made.lineage == {"MLflow run": RUN}
    assert any("its training is not known" in limit for limit in made.limits)


@pytest.mark.parametrize("few", [{"Female": [3, 4], "Male": [1100, 1196]}, {"Female": [1, 1], "Male": [2, 2]}])
def test_few_rows_of_a_closed_use_case_cannot_be_computed_from_its_card(few: dict[str, list[int]]) -> None:
    made = card(reason="better: by 0.1234", groups={"gender": few})
    withheld = [figures(made)["accuracy", f"gender: {value}"] for value in few]
    # The other value is withheld, too: the number of all rows would give the first away.
    assert all((f.rows, f.value, f.low, f.high) == (None,) * 4 for f in withheld)
    assert made.gate == "Passed"
    assert made.rules[0].words == "withheld"
    for text in (as_markdown(made), json.dumps(as_json(made)), json.dumps(as_cyclonedx(made))):
        assert not any(leak in text for leak in ("1196", "1,196", "0.1234", "0.91234", "0.75"))


def test_an_open_use_case_withholds_nothing() -> None:
    made = card(OPEN, groups={"gender": {"Female": [3, 4], "Male": [1100, 1196]}})
    assert figures(made)["accuracy", "gender: Female"].value == 0.75
    assert "The accuracy of gender: Female rests on 4 held-out rows only" in made.limits


def test_limits_name_what_is_known_to_be_weak() -> None:
    changed = dataclasses.replace(FACTS, declaration={**FACTS.declaration, "gone": {"kind": "number"}})
    weak = REPORT | {"recalled": {"0": [100, 550]}}
    verdict = Verdict(False, "not better: by far", weak)
    limits = card_of(OPEN, VERSION, dataclasses.replace(MANIFEST, facts=changed), verdict).limits
    assert "The gate refused this version" in limits
    assert "It was trained for another declaration: gone was declared" in limits
    assert "The recall of class Low is 0.182: most of these rows are answered wrongly" in limits


def test_the_lineage_leads_to_run_rows_code_and_files() -> None:
    lineage = card().lineage
    assert lineage.items() >= {"MLflow run": RUN, "batches": "1, 2", "seed": "7", "parameters": "n_neighbors=5"}.items()
    assert lineage["manifest (SHA-256)"] == MANIFEST.digest
    assert "signed by the key" not in lineage


def test_the_lineage_names_the_key_that_signed_the_files() -> None:
    key = SigningKey(Ed25519PrivateKey.generate())
    signed = dataclasses.replace(MANIFEST, signature=sign(key, MANIFEST.model, MANIFEST.files).decode())
    lineage = card_of(EMPLOYEES, VERSION, signed, None).lineage
    assert lineage["signed by the key"] == key.public_of_versions.fingerprint


HOSTILE = "see [here](http://evil.test) <script>alert(1)</script> | ![x](y)\n# heading"


def test_text_from_elsewhere_makes_no_markdown() -> None:
    text = as_markdown(
        card(OPEN, reason=HOSTILE, rules=[{"name": "floor", "holds": True, "words": HOSTILE, "figures": {}}])
    )
    assert "\n# heading" not in text
    assert "](" not in text.replace("\\]", "")
    assert "<script" not in text.replace("\\<", "")
    row = next(line for line in text.splitlines() if line.startswith("| floor"))
    assert row.replace("\\|", "").count("|") == 4


def test_escaped_text_is_one_line() -> None:
    assert escaped("a\n b|c") == "a b\\|c"


def test_markdown_has_every_section() -> None:
    text = as_markdown(card())
    heads = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["Intended use", "Data", "Figures", "Limits", "Gate", "Lineage", "Files"]
    assert "| accuracy | gender: Female | 0.920 | 0.900 to 0.940 | 660 |" in text


def test_json_has_no_values_that_json_lacks() -> None:
    assert json.loads(json.dumps(as_json(card()), allow_nan=False))["created_at"] == "2026-11-27T00:00:00+00:00"


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


TEXT = {"type": "string"}
PROPERTIES = {"type": "array", "items": _object(name=TEXT, value=TEXT)}
METRIC = _object(type=TEXT, value=TEXT, slice=TEXT, confidenceInterval=_object(lowerBound=TEXT, upperBound=TEXT))
DATASET = _object(type={"const": "dataset"}, name=TEXT, description=TEXT, contents=_object(properties=PROPERTIES))
FORMATS = {"type": "array", "items": _object(format=TEXT)}
HASHES = {"type": "array", "items": _object(alg={"const": "SHA-256"}, content={"pattern": "^[a-f0-9]{64}$"})}
MODEL = _object(
    type={"const": "machine-learning-model"},
    **{"bom-ref": TEXT},
    name=TEXT,
    version=TEXT,
    description=TEXT,
    components={"type": "array", "items": _object(type={"const": "file"}, name=TEXT, hashes=HASHES)},
    properties=PROPERTIES,
    modelCard=_object(
        modelParameters=_object(
            approach=_object(type={"const": "supervised"}),
            task=TEXT,
            architectureFamily=TEXT,
            datasets={"type": "array", "items": DATASET},
            inputs=FORMATS,
            outputs=FORMATS,
        ),
        quantitativeAnalysis=_object(
            performanceMetrics={"type": "array", "items": METRIC | {"required": ["type", "value"]}}
        ),
        considerations=_object(
            useCases={"type": "array", "items": TEXT}, technicalLimitations={"type": "array", "items": TEXT}
        ),
    ),
)
BOM = _object(
    bomFormat={"const": "CycloneDX"},
    specVersion={"const": "1.6"},
    serialNumber={"pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    version={"const": 1},
    metadata=_object(timestamp=TEXT, tools=_object(components={"type": "array"})),
    components={"type": "array", "items": MODEL},
)
"""The part of the schema of CycloneDX 1.6 that a card uses: names, nesting and the types of values."""


def test_the_bill_of_materials_has_the_shape_of_cyclonedx() -> None:
    made = as_cyclonedx(card())
    jsonschema.validate(made, BOM)
    metrics = made["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {
        "type": "accuracy",
        "value": "0.920000",
        "slice": "gender: Female",
        "confidenceInterval": {"lowerBound": "0.900000", "upperBound": "0.940000"},
    } in metrics


def test_the_same_version_always_has_the_same_serial_number() -> None:
    other = card_of(EMPLOYEES, VERSION, dataclasses.replace(MANIFEST, files={}), None)
    assert as_cyclonedx(card()) == as_cyclonedx(card())
    assert as_cyclonedx(card())["serialNumber"] != as_cyclonedx(other)["serialNumber"]
