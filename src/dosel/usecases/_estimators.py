"""Classifiers that several use cases search: functions of a seed, which import the library when they are called."""

from typing import Any


def k_neighbours(seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier()


def random_forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(random_state=seed)


def lightgbm(seed: int) -> Any:
    from lightgbm import LGBMClassifier

    # Folds already run in parallel; LightGBM's own threads would slow them down.
    return LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1, deterministic=True, force_row_wise=True)
