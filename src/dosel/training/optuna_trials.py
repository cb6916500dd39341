"""Finished trials of Optuna searches in a database, so that an interrupted search does not score them again."""

import logging
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from dosel.db.engine import engine_arguments
from dosel.training.candidates import Figures

FIGURES = "figures"
"""Attribute of a trial: its figures, a list of each over the folds it had."""

log = logging.getLogger(__name__)


class StoredTrials:
    """The finished trials of one search.

    Args:
        url: of the database; "" stores nothing.
        name: of the search in the database.
    """

    def __init__(self, url: str, name: str) -> None:
        self._study: optuna.Study | None = None
        self._figures: dict[str, Mapping[str, list[float]]] = {}
        if not url:
            return
        self._study = optuna.create_study(
            storage=_opened(url), study_name=name, load_if_exists=True, direction="maximize"
        )
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        self._figures = {_key(trial.params): trial.user_attrs[FIGURES] for trial in done}
        if done:
            log.info("%d trials of %s are finished; the search continues from there", len(done), name)

    def figures(self, params: Mapping[str, Any]) -> list[Figures]:
        """The figures of the folds that an earlier process scored with these parameters, from the first fold on."""
        by_name = self._figures.get(_key(params), {})
        return [dict(zip(by_name, of_fold, strict=True)) for of_fold in zip(*by_name.values(), strict=True)]

    def add(self, trial: FrozenTrial) -> None:
        """Store a trial unless it is stored."""
        if self._study is not None and self._figures.get(_key(trial.params)) != trial.user_attrs[FIGURES]:
            self._study.add_trial(trial)


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))


def _opened(url: str) -> RDBStorage:
    address, arguments = engine_arguments(url)
    return RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=arguments)
