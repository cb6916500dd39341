"""How a fitted model is written and read: in skops, which runs no code from the file.

A skops file names the types it is made of, and reading builds only those that are trusted. MLflow takes
its list of trusted types from the very model it reads, which vouches for itself; ours is `TRUSTED_TYPES`,
and it alone counts when a model is loaded to serve.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from dosel.errors import UntrustedModel

FORMAT = "skops"

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
"""Beyond what skops itself trusts: containers of numbers whose reading runs nothing, and the two boosters, which read
trees from a format of their own."""

_FILE = "model.skops"
_MADE_WITH = ("scikit-learn", "skops", "numpy", "pandas", "scipy", "lightgbm", "xgboost-cpu")


def requirements() -> list[str]:
    """What loading a model needs, at the versions that made it."""
    return [f"{package}=={version(package)}" for package in _MADE_WITH]


def write(model: Any, folder: Path) -> None:
    """Writes the estimator where `read` finds it."""
    from skops.io import dump

    dump(model, folder / _FILE)


def read(folder: Path) -> Any:
    """The estimator in an MLflow model's folder.

    Raises:
        UntrustedModel: it is in another format, or is made of types that are not on the list.
    """
    from skops.io import get_untrusted_types, load

    file = folder / _FILE
    if not file.is_file():
        raise UntrustedModel(f"{folder.name} holds no {_FILE}: only models written as {FORMAT} are loaded")
    unknown = sorted(set(get_untrusted_types(file=file)) - set(TRUSTED_TYPES))
    if unknown:
        raise UntrustedModel(f"{folder.name} is made of types that nobody vouched for: {', '.join(unknown)}")
    return load(file, trusted=list(TRUSTED_TYPES))
