"""Versions that requests name by their number, whether or not they are in Production."""

import threading
from collections import OrderedDict

from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from app.serving.version_loader import VersionLoader
from app.serving.work_queue import WorkQueue
from dosel.settings import Settings
from dosel.usecases import UseCase

MOST = 2
"""Versions that stay in memory beside those in Production; of more, the one that was named longest ago goes."""

SECONDS = 30.0
"""How long a request waits for a version that is loaded for it."""


class NamedVersions:
    """Loads versions when they are named, one at a time."""

    def __init__(self, settings: Settings, follower: ModelFollower) -> None:
        self._follower = follower
        self._loader = VersionLoader(settings)
        self._loads = WorkQueue("loads of a version", 1, 7, SECONDS)
        self._loaded: OrderedDict[tuple[str, int], LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    async def get(self, use_case: UseCase, number: int, client: str) -> LoadedModel:
        """The version of that number, loaded and warm.

        Raises:
            ModelNotFound: there is none of that number.
            UntrustedModel: its files are not those that were registered.
            Overloaded: it cannot be loaded in time.
        """
        if found := self._known(use_case, number):
            return found
        return await self._loads.run(client, lambda: self._load(use_case, number))

    def _known(self, use_case: UseCase, number: int) -> LoadedModel | None:
        champion = self._follower.loaded(use_case)
        if champion is not None and champion.version.version == number:
            return champion
        with self._lock:
            found = self._loaded.get((use_case.name, number))
            if found is not None:
                self._loaded.move_to_end((use_case.name, number))
            return found

    def _load(self, use_case: UseCase, number: int) -> LoadedModel:
        # A request before this one may have loaded it.
        if found := self._known(use_case, number):
            return found
        cache_name = f"{use_case.model_name}@by number"
        found = self._loader.load(self._follower.registry(), use_case, cache_name, number)
        with self._lock:
            self._loaded[use_case.name, number] = found
            while len(self._loaded) > MOST:
                self._loaded.popitem(last=False)
        return found
