"""Palmer penguins (Horst, Hill and Gorman 2020, CC0): three species of the Palmer Archipelago, by their measurements.

Bounds are those of the 344 published birds, with about a quarter of the range on either side.
"""

from typing import Any

from dosel.usecases._estimators import k_neighbours, random_forest
from dosel.usecases.declaration import Family, Gate, PackageRows, Split, UseCase
from dosel.usecases.features import Category, Choice, Number, Target

_ISLANDS = tuple(Choice(name, name) for name in ("Biscoe", "Dream", "Torgersen"))
_SEXES = (Choice("female", "Female", ("f",)), Choice("male", "Male", ("m",)))


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(random_state=seed, max_iter=1000)


def _xgboost(seed: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(random_state=seed, n_jobs=1)


def _bill(part: str, minimum: float, maximum: float, example: float) -> Number:
    """The bill's length or depth; older files call the bill's upper ridge culmen."""
    name, words = f"bill_{part}_mm", f"{part.capitalize()} of the bill's upper ridge."
    older = (f"culmen_{part}_mm",)
    return Number(name, f"Bill {part}", "mm", minimum, maximum, example, words, integer=False, aliases=older)


PENGUINS = UseCase(
    name="penguins",
    title="Palmer penguins",
    summary="Which species a penguin of the Palmer Archipelago is, from its measurements, sex and island.",
    features=(
        Category("island", "Island", _ISLANDS, "Torgersen", "Island on which the penguin was met."),
        _bill("length", 25, 70, 39.1),
        _bill("depth", 10, 25, 18.7),
        Number("flipper_length_mm", "Flipper length", "mm", 150, 250, 181, "Length of the flipper."),
        Number("body_mass_g", "Body mass", "g", 2000, 8000, 3750, "Weight of the penguin."),
        Category("sex", "Sex", _SEXES, "male", "Sex of the penguin."),
    ),
    # From 0, as XGBoost requires.
    target=Target(
        "species",
        "Species",
        {0: "Adelie", 1: "Chinstrap", 2: "Gentoo"},
        spellings={"Adelie": 0, "Chinstrap": 1, "Gentoo": 2},
    ),
    experiment="penguins_training_experiment",
    model_name="penguins_species",
    rows=PackageRows("palmerpenguins", "data/penguins.csv"),
    missing=("", "NA", "."),
    families=(
        Family("knn", k_neighbours, {"n_neighbors": (3, 5, 9), "weights": ("uniform", "distance")}),
        Family("logistic_regression", _logistic, {"C": (0.1, 1.0, 10.0)}),
        Family("random_forest", random_forest, {"n_estimators": (50, 100), "max_depth": (4, None)}, "forest_prefixes"),
        Family("xgboost", _xgboost, {"n_estimators": (50, 100), "max_depth": (2, 4)}),
    ),
    split=Split(salt="penguins-1"),
    # About a hundred held-out rows: one row is a hundredth.
    gate=Gate("accuracy", min_gain=0.001, tolerance=0.03, max_class_drop=0.10, floor=0.90),
    folds=5,
    expose_training_rows=True,
    # Penguins train fastest, so that a new user soon sees a prediction.
    priority=10,
)
