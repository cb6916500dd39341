"""A model's fast form, kept beside it from its registration on: whoever loads the version need not make it anew.

It is one of the version's files, so that the manifest covers it as it does the model. Other versions of the
libraries may compute otherwise: what they left is passed over, and the form is made and proven again.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dosel.model import formats
from dosel.model.predictor import Predictor

FOLDER = "serving"
"""Where it lies among a version's files."""

_ONNX = "classifier.onnx"
_ABOUT = "form.json"


@dataclass(frozen=True)
class StoredBackend:
    """What is known of a form: proven ONNX, or why the model itself is to answer; neither, if it is to be found out."""

    onnx: bytes | None = None
    refused: str = ""


def made_with() -> list[str]:
    """The libraries whose versions decide what a form computes."""
    return [*formats.requirements(), f"onnxruntime=={version('onnxruntime')}"]


def write(predictor: Predictor, files: Path) -> Path:
    """Writes the form that `predictor` settled on beside a version's files; gives its folder there.

    The same model gives the same content.
    """
    folder = files / FOLDER
    folder.mkdir(exist_ok=True)
    about = {"made_with": made_with(), "refused": predictor.fallback_reason, "proof": str(predictor.parity or "")}
    (folder / _ABOUT).write_text(json.dumps(about, indent=1))
    if predictor.onnx is not None:
        (folder / _ONNX).write_bytes(predictor.onnx)
    return folder


def beside(folder: Path) -> StoredBackend:
    """What the folder of a version's files says; nothing, if other libraries said it."""
    about, onnx = folder / FOLDER / _ABOUT, folder / FOLDER / _ONNX
    if not about.is_file():
        return StoredBackend()
    known = json.loads(about.read_text())
    if known["made_with"] != made_with():
        return StoredBackend()
    return StoredBackend(onnx.read_bytes() if onnx.is_file() else None, known["refused"])
