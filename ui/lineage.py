"""The lineage of a version in words."""

from typing import Any


def facts_of(detail: dict[str, Any]) -> dict[str, str]:
    """What a version was made of, by name.

    Args:
        detail: the answer of `GET /models/{name}/versions/{version}`.
    """
    version, manifest = detail["version"], detail["manifest"]
    lineage = version["lineage"]
    facts = {
        "MLflow run": version["run_id"],
        "Family": lineage["family"],
        "Parameters": ", ".join(f"{name} {value}" for name, value in version["params"].items()),
        "Rows (SHA-256)": lineage["data_digest"],
        "Batches": ", ".join(map(str, lineage["batch_ids"])),
        "Rows trained on, held out": f"{lineage['rows_train']}, {lineage['rows_test']}",
        "Split": lineage["split_version"],
        "Code": lineage["code_version"],
        "Files (SHA-256)": manifest["digest"] if manifest else "no manifest",
    }
    return {name: value or "unknown" for name, value in facts.items()}
