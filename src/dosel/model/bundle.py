"""A model version as one folder of files: write, read and hash them.

    model.skops                     the fitted pipeline
    extra_files/reference.parquet   the training rows, for explanations (`dosel.model.reference`)
    extra_files/held_out.parquet    its probabilities on held-out rows (`dosel.model.held_out`)
    extra_files/source.zip          the source that trained it, and the lock of its libraries (`dosel.model.source`)
    extra_files/source.patch        how that source differed from its git commit, if it did
    serving/classifier.onnx         the classifier as ONNX, if it passed the parity check
    serving/encoder.json            its classes and its preprocessing as values, so that answers need no scikit-learn
    serving/form.json               which backend answers and why
    MLmodel, conda.yaml, …          what MLflow adds
    model.sig                       the signature of all other files (`dosel.model.signature`)

`dosel.registry.file_verification` verifies them. Reading runs no code from the files. A skops file names the types it
is made of, and only those on `TRUSTED_TYPES` are built. MLflow takes its list of trusted types from the very model it
reads; that list is ignored here.
"""

import hashlib
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dosel.errors import UntrustedModel
from dosel.rows.shortened import cut

if TYPE_CHECKING:
    from dosel.model.encoding import StoredEncoder
    from dosel.model.predictor import Predictor

FORMAT = "skops"

MOST_NAMED = 10
"""Files that an error names; somebody may have added a thousand."""

TRUSTED_TYPES: tuple[str, ...] = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.impute._iterative.IterativeImputer",
    "sklearn.impute._iterative._ImputerTriplet",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
)
"""Types beyond those that skops itself trusts: containers of numbers whose reading runs no code, and the two
boosters, which read trees from a format of their own."""

REFERENCE_FILE = "reference.parquet"
HELD_OUT_FILE = "held_out.parquet"
BACKEND_FOLDER = "serving"
ONNX_FILE = "classifier.onnx"
SIGNATURE_FILE = "model.sig"
BACKEND_FILE = "form.json"
ENCODER_FILE = "encoder.json"

ESTIMATOR_FILE = "model.skops"
_EXTRA_FILES = "extra_files"
"""Where MLflow puts files that are logged with a model."""
_LIBRARIES = ("scikit-learn", "skops", "numpy", "pandas", "scipy", "lightgbm", "xgboost-cpu")


@dataclass(frozen=True)
class StoredBackend:
    """The result of an earlier parity check: the ONNX model, or why scikit-learn answers; empty if none was stored.

    Attributes:
        encoder: None if scikit-learn's preprocessing is used, or an older dosel wrote the version.
    """

    onnx: bytes | None = None
    fallback_reason: str = ""
    encoder: "StoredEncoder | None" = None


@dataclass(frozen=True)
class Bundle:
    """A version's folder as it was read: the fitted pipeline and the stored backend."""

    estimator: Any
    backend: StoredBackend


def read(folder: Path) -> Bundle:
    """Read the estimator and the stored backend.

    Raises:
        UntrustedModel: see `read_estimator`.
    """
    return Bundle(read_estimator(folder), read_backend(folder))


def requirements() -> list[str]:
    """The packages that loading a model needs, at the installed versions."""
    return [f"{package}=={version(package)}" for package in _LIBRARIES]


def read_estimator(folder: Path, digests: Mapping[str, str] | None = None) -> Any:
    """Read the estimator. `digests` is as in `read_backend`.

    Raises:
        UntrustedModel: it is in another format, contains types that are not on the list, or was changed.
    """
    content = _content(folder, ESTIMATOR_FILE, digests)
    if content is None:
        raise UntrustedModel(f"{folder.name} has no {ESTIMATOR_FILE}: only models in the format {FORMAT} are loaded")
    return _parsed(content, folder.name)


def _parsed(content: bytes, name: str) -> Any:
    from skops.io import get_untrusted_types, loads

    unknown = sorted(set(get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
    if unknown:
        raise UntrustedModel(f"{name} contains types that are not trusted: {', '.join(unknown)}")
    return loads(content, trusted=list(TRUSTED_TYPES))


class EstimatorFile:
    """The open file of an estimator, to be read later or never: its folder may be gone by then.

    Args:
        sha256: the digest of the file, which the caller has verified. It is verified again before the file is read.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, folder: Path, sha256: str) -> None:
        self._name, self._sha256 = folder.name, sha256
        self._descriptor = os.open(folder / ESTIMATOR_FILE, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process, which has the content."""
        return _EstimatorContent, (self._name, self._content())

    def read(self) -> Any:
        """Read the estimator.

        Raises:
            UntrustedModel: the file was changed since, or see `read_estimator`.
        """
        return _parsed(self._content(), self._name)

    def _content(self) -> bytes:
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        if hashlib.sha256(content).hexdigest() != self._sha256:
            raise UntrustedModel(f"{self._name}: {ESTIMATOR_FILE} was changed on this machine's disk; restart the API")
        return content


@dataclass(frozen=True)
class _EstimatorContent:
    """The verified content of an estimator's file."""

    name: str
    content: bytes

    def read(self) -> Any:
        return _parsed(self.content, self.name)


def write_backend(predictor: "Predictor", folder: Path) -> None:
    """Write the backend that `predictor` chose. The same model gives the same content."""
    target = folder / BACKEND_FOLDER
    target.mkdir(exist_ok=True)
    # These keys never change: versions that are already registered have them, too.
    about = {
        "made_with": _backend_libraries(),
        "refused": predictor.fallback_reason,
        "proof": str(predictor.parity or ""),
    }
    (target / BACKEND_FILE).write_text(json.dumps(about, indent=1))
    if predictor.steps is not None:
        from dosel.model.encoding import StoredEncoder

        stored = StoredEncoder(list(predictor.classes), predictor.steps)
        content = msgspec.json.encode(stored)
        # JSON has no infinity: a preprocessing with one is read from the estimator.
        if _read_encoder(content) == stored:
            (target / ENCODER_FILE).write_bytes(content)
    if predictor.onnx is not None:
        (target / ONNX_FILE).write_bytes(predictor.onnx)


def read_backend(folder: Path, digests: Mapping[str, str] | None = None) -> StoredBackend:
    """Read the stored backend; empty if there is none, or if other library versions wrote it.

    Args:
        digests: SHA-256 of each file by its path. What is read is compared with it, since a folder that was verified
            can be changed before it is read.

    Raises:
        UntrustedModel: a file is not the one with this digest.
    """
    about = _content(folder, f"{BACKEND_FOLDER}/{BACKEND_FILE}", digests)
    if about is None:
        return StoredBackend()
    known = json.loads(about)
    if known["made_with"] != _backend_libraries():
        # Another version may compute other numbers, so the parity check has to run again.
        return StoredBackend()
    encoder = _content(folder, f"{BACKEND_FOLDER}/{ENCODER_FILE}", digests)
    onnx = _content(folder, f"{BACKEND_FOLDER}/{ONNX_FILE}", digests)
    return StoredBackend(onnx, known["refused"], _read_encoder(encoder) if encoder is not None else None)


def _read_encoder(content: bytes) -> "StoredEncoder | None":
    """The stored preprocessing; None if it has another form, as of a later dosel."""
    # It imports numpy, which commands that only verify files do without.
    from dosel.model.encoding import StoredEncoder

    try:
        return msgspec.json.decode(content, type=StoredEncoder)
    except msgspec.DecodeError:
        return None


def read_reference(folder: Path, digests: Mapping[str, str] | None = None) -> bytes | None:
    """Read the file of training rows; None if the version has none. `digests` is as in `read_backend`."""
    return _content(folder, f"{_EXTRA_FILES}/{REFERENCE_FILE}", digests)


def read_held_out(folder: Path) -> bytes | None:
    """Read the file of answers on held-out rows; None if the version has none."""
    return _content(folder, f"{_EXTRA_FILES}/{HELD_OUT_FILE}", None)


def _content(folder: Path, path: str, digests: Mapping[str, str] | None) -> bytes | None:
    file = folder / path
    content = file.read_bytes() if file.is_file() else None
    if digests is None:
        return content
    if (hashlib.sha256(content).hexdigest() if content is not None else None) != digests.get(path):
        raise UntrustedModel(f"{folder.name}: {path} was changed on this machine's disk after it was verified")
    return content


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path there; of all but the folder's signature."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}


def file_sizes(folder: Path) -> dict[str, int]:
    """The bytes of the same files."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SIGNATURE_FILE)


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Describe how the digests `found` differ from those `expected`, naming ten files; empty if they are equal."""
    parts = {
        "missing": expected.keys() - found.keys(),
        "not in the manifest": found.keys() - expected.keys(),
        "changed": {path for path in expected.keys() & found.keys() if expected[path] != found[path]},
    }
    return "; ".join(f"{_named(sorted(paths))} {what}" for what, paths in parts.items() if paths)


def _named(paths: Sequence[str]) -> str:
    """The first paths, and how many others there are; a name may have hundreds of characters."""
    shown = [cut(path) for path in paths[:MOST_NAMED]]
    more = [f"{len(paths) - MOST_NAMED:,} more"] if len(paths) > MOST_NAMED else []
    return ", ".join(shown + more)


def _backend_libraries() -> list[str]:
    return [*requirements(), f"onnxruntime=={version('onnxruntime')}"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
