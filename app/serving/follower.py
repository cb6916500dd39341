"""What this process answers with: a loaded model for each use case, kept in step with Production."""

import gc
import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

import msgspec

from dosel.errors import DoselError, ModelNotFound, NotExplainable, RegistryError, UnknownUseCase
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already say that it is alive.
    from dosel.explain import Explainer
    from dosel.model.cache import ModelCache
    from dosel.model.predictor import Predictor
    from dosel.registry.registry import Registry
    from dosel.registry.store import ModelVersion

STALE = "X-Model-Stale"
"""Header of an answer by a version of which the registry could not confirm that it is in Production."""

WARM_UP_ROWS = 50
"""Rows a model answers before anybody asks it: the first ones take longer."""

MAX_RELOAD_SECONDS = 60.0
"""Longest pause before a version that could not be loaded is tried again."""

log = logging.getLogger("uvicorn.error")


class NotReady(RegistryError):
    """No model answers for now; the message says what to wait for."""


class Overloaded(RegistryError):
    """Too much waits already; the message says what."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers. Never changed: another version is another `LoadedModel`."""

    predictor: "Predictor"
    version: "ModelVersion"
    loaded_at: datetime
    manifest: str = ""
    """Digest of the version's files by the ledger, as it was when they were verified."""
    reference: Callable[[], bytes | None] = lambda: None
    """Gives the rows it was trained on, as `dosel.model.reference` wrote them; None if it came without."""

    @cached_property
    def explainer(self) -> "Explainer":
        """Made when somebody first asks: it takes time and memory that predicting does without. For one thread only.

        Raises:
            NotExplainable: the version has no training rows with it.
        """
        from dosel.explain import Explainer

        content = self.reference()
        if content is None:
            raise NotExplainable(
                f"{self.version.name} version {self.version.version} was registered without its training rows, before "
                "dosel could explain; the next version that is trained has them"
            )
        return Explainer(self.predictor, content)

    @cached_property
    def signature(self) -> bytes:
        """What ends the JSON object of an answer: which model it was."""
        version = self.version
        reference = {"name": version.name, "version": version.version, "run_id": version.run_id}
        return b',"model":' + msgspec.json.encode(reference) + b"}"


@dataclass
class _Slot:
    """Where a use case's model stands. Written by one look at a time; reading `served` takes no lock."""

    use_case: UseCase
    family: str = ""
    """Whose newest version it is; "" is what is in Production."""
    served: LoadedModel | None = None
    stale: bool = True
    confirmed: bool = False
    swaps: int = 0
    waiting_for: str = "the first look at the registry"
    failed: bool = False
    trouble: str = ""
    unloadable: int | None = None
    pause: float = 0.0
    not_before: float = 0.0

    @property
    def kept_as(self) -> str:
        """What its versions are kept as on disk."""
        name = self.use_case.model_name
        return f"{name}@{self.family}" if self.family else name


class ModelFollower:
    """Follows what is in Production, from a thread of its own; a model that answers stays until the next one does.

    Args:
        open_registry: makes the connection to the registry; called again until it succeeds.
    """

    def __init__(
        self,
        settings: Settings,
        use_cases: Sequence[UseCase],
        open_registry: "Callable[[Settings], Registry] | None" = None,
    ) -> None:
        self._settings = settings
        self._open_registry = open_registry or _open
        self._registry: Registry | None = None
        self._places = {use_case.name: _Slot(use_case) for use_case in use_cases}
        self._families: dict[tuple[str, str], _Slot] = {}
        """Those that somebody asked for."""
        self._looking = threading.Lock()
        self._opening = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="production", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the watching. A look that waits for MLflow in this moment is not waited for."""
        self._stopped.set()
        self._thread.join(timeout=1)

    @property
    def use_cases(self) -> list[UseCase]:
        return [place.use_case for place in self._places.values()]

    def named(self, name: str) -> UseCase:
        """
        Raises:
            UnknownUseCase: this API serves none of that name.
        """
        if name not in self._places:
            raise UnknownUseCase(f"no use case {name!r}; there are: {', '.join(self._places)}")
        return self._places[name].use_case

    def check_model(self, use_case: UseCase, model: str) -> None:
        """
        Raises:
            ModelNotFound: `model` is not the registered model of the use case; the message says what is.
        """
        if model == use_case.model_name:
            return
        for other in self.use_cases:
            if model == other.model_name:
                raise ModelNotFound(f"{model} is the model of {other.name}: POST /predict/{other.name} asks it")
        families = ", ".join(family.name for family in use_case.families)
        raise ModelNotFound(
            f"no registered model {model!r}; for {use_case.name} there is: {use_case.model_name}, of the families "
            f"{families}"
        )

    def served(self, use_case: UseCase) -> LoadedModel:
        """
        Raises:
            NotReady: nothing is loaded yet.
        """
        place = self._places[use_case.name]
        if place.served is None:
            raise NotReady(f"no model answers for {use_case.name} yet; waiting for {place.waiting_for}")
        return place.served

    def of_family(self, use_case: UseCase, family: str) -> LoadedModel | None:
        """A family's newest version, if somebody had it loaded; it is followed since then."""
        place = self._families.get((use_case.name, family))
        return place.served if place else None

    def load_family(self, use_case: UseCase, family: str) -> LoadedModel:
        """Loads a family's newest version. Waits for MLflow.

        Raises:
            NotReady: there is none yet, or it cannot be loaded.
        """
        with self._looking:
            place = self._families.setdefault((use_case.name, family), _Slot(use_case, family))
            if place.served is None:
                self._revive(place)
                self._follow(place)
        if place.served is None:
            raise NotReady(
                f"no model of the family {family} answers for {use_case.name} yet; waiting for {place.waiting_for}"
            )
        return place.served

    def loaded(self, use_case: UseCase) -> LoadedModel | None:
        """What answers, for those who only tell of it; None while nothing does."""
        return self._places[use_case.name].served

    def waiting_for(self, use_case: UseCase) -> str:
        """What keeps the use case from following Production; "" while it does."""
        return self._places[use_case.name].waiting_for

    def stale(self, use_case: UseCase, family: str = "") -> bool:
        """Whether the last look could not confirm that what answers is in Production, or a family's newest version."""
        place = self._families[use_case.name, family] if family else self._places[use_case.name]
        return place.stale

    def swaps(self, use_case: UseCase) -> int:
        """How many versions have taken over so far."""
        return self._places[use_case.name].swaps

    def registry(self) -> "Registry":
        """
        Raises:
            RegistryError: MLflow cannot be reached.
            WarehouseError: the data store, which keeps the promotion ledger, cannot be reached.
        """
        with self._opening:
            if self._registry is None:
                self._registry = self._open_registry(self._settings)
            return self._registry

    def look(self, use_cases: Sequence[UseCase] | None = None) -> None:
        """Looks at the registry now, for some or for all, and loads what is in Production.

        Raises:
            NotReady: the registry cannot be asked, a version cannot be loaded, or no model answers at all.
        """
        places = [self._places[u.name] for u in (use_cases or self.use_cases)]
        with self._looking:
            for place in places:
                place.not_before = 0.0
                self._follow(place)
        for place in places:
            if place.failed:
                raise NotReady(f"{place.use_case.name}: waiting for {place.waiting_for}{_meanwhile(place)}")
        if not any(place.served for place in places):
            self.served(places[0].use_case)

    def _watch(self) -> None:
        for place in self._places.values():
            self._revive(place)
        while not self._stopped.is_set():
            with self._looking:
                for place in [*self._places.values(), *self._families.values()]:
                    self._follow(place)
            self._stopped.wait(self._settings.poll_seconds)

    def _follow(self, place: _Slot) -> None:
        """Brings one place to what is in Production; whatever goes wrong, what answered before goes on answering."""
        name = place.use_case.model_name
        number: int | None = None
        try:
            registry = self.registry()
            number = registry.newest_of(name, place.family) if place.family else registry.production_number(name)
            if number is None:
                wanted = f"of the family {place.family}" if place.family else "in Production"
                dags = f"the DAGs {place.use_case.name}_ingest and {place.use_case.name}_train bring one there"
                self._tell(place, "empty", f"a version of {name} {wanted}: {dags}", failed=False)
            elif place.served is not None and place.served.version.version == number and self._is_same(place):
                self._tell(place, "", "", failed=False)
            elif number != place.unloadable or time.monotonic() >= place.not_before:
                self._swap(place, number)
                place.unloadable, place.pause = None, 0.0
                self._tell(place, "", "", failed=False)
        except Exception as error:  # noqa: BLE001  a model can fail in any way as it is read; this thread must live on
            if number is not None:
                place.unloadable = number
                place.pause = min(max(2 * place.pause, self._settings.poll_seconds), MAX_RELOAD_SECONDS)
                place.not_before = time.monotonic() + place.pause
            what = f"{name} version {number}, which could not be loaded" if number is not None else "the registry"
            reason = str(error) if isinstance(error, DoselError) else f"{type(error).__name__}: {error}"
            self._tell(place, f"{number} {type(error).__name__}", f"{what}: {reason}", failed=True)

    def _tell(self, place: _Slot, trouble: str, waiting_for: str, failed: bool) -> None:
        """Notes how a look ended, and logs it if the one before ended otherwise: a look comes every few seconds."""
        place.waiting_for, place.failed, place.stale = waiting_for, failed, failed
        if trouble == place.trouble:
            return
        place.trouble = trouble
        if trouble:
            level = logging.WARNING if failed else logging.INFO
            log.log(level, "%s: waiting for %s%s", place.use_case.name, waiting_for, _meanwhile(place))
        else:
            log.info("%s: follows Production", place.use_case.name)

    def _swap(self, place: _Slot, number: int) -> None:
        """Puts a version in the place of what answers now, once it is loaded whole, proven and warm."""
        from dosel.model.cache import Cached
        from dosel.model.predictor import Predictor

        registry, use_case = self.registry(), place.use_case
        version = registry.version(use_case.model_name, number)
        manifest = registry.manifest(version)
        digest = manifest.digest if manifest else ""
        kept, new = self._kept(place, number), None
        if kept is not None and digest and (kept.version.run_id, kept.manifest) == (version.run_id, digest):
            served = LoadedModel(kept.predictor, version, datetime.now(UTC), digest, kept.reference)
        else:
            loaded = registry.loaded(version)
            predictor = Predictor(
                use_case, loaded.model, loaded.backend.onnx, _refused(version) or loaded.backend.refused
            )
            _warm_up(predictor, use_case)
            served = LoadedModel(predictor, version, datetime.now(UTC), digest, lambda: loaded.reference)
            new = Cached(loaded.model, predictor.onnx, _about(version, digest), loaded.reference)
        # In this order: an answer in between is by what was just confirmed.
        place.confirmed, place.stale = True, False
        place.served = served
        place.swaps += 1
        _settle()
        if new is not None:
            self._cache().store(place.kept_as, number, new)
        self._cache().note_last(place.kept_as, number)
        what = f"{version.name} version {number}" + (f", {place.family}," if place.family else "")
        log.info("%s: %s answers, by %s", use_case.name, what, served.predictor.backend)

    def _revive(self, place: _Slot) -> None:
        """Answers with what this machine last saw in Production, until the registry has been asked."""
        try:
            number = self._cache().last(place.kept_as)
            kept = self._kept(place, number) if number is not None else None
        except Exception:
            log.exception("%s: what is kept on disk cannot be used", place.use_case.name)
            return
        if kept is not None:
            place.served = kept
            _settle()
            version = kept.version
            log.info("%s: %s version %d answers, from disk", place.use_case.name, version.name, version.version)

    def _kept(self, place: _Slot, number: int) -> LoadedModel | None:
        """A version from this machine's disk, warm; None if it is not there."""
        from dosel.model.predictor import Predictor
        from dosel.registry.store import ModelVersion

        cached = self._cache().load(place.kept_as, number)
        if cached is None:
            return None
        about = msgspec.json.decode(cached.about)
        version = msgspec.convert(about["version"], ModelVersion)
        predictor = Predictor(place.use_case, cached.model, cached.onnx, _refused(version))
        _warm_up(predictor, place.use_case)
        reference = partial(self._cache().reference, place.kept_as, number)
        return LoadedModel(predictor, version, datetime.now(UTC), about["manifest"], reference)

    def _is_same(self, place: _Slot) -> bool:
        """Whether what was revived from disk is what the registry means by that number."""
        assert place.served is not None
        if not place.confirmed:
            version = place.served.version
            manifest = self.registry().manifest(self.registry().version(version.name, version.version))
            found = (manifest.run_id, manifest.digest) if manifest else None
            place.confirmed = found == (version.run_id, place.served.manifest)
        return place.confirmed

    def _cache(self) -> "ModelCache":
        from dosel.model.cache import ModelCache

        # Version 3 of one registry is not version 3 of another.
        registry = hashlib.sha256(self._settings.tracking_uri.encode()).hexdigest()[:12]
        return ModelCache(self._settings.home / "serving" / registry)


def _warm_up(predictor: "Predictor", use_case: UseCase) -> None:
    for _ in range(WARM_UP_ROWS):
        predictor.predict([use_case.example])


def _refused(version: "ModelVersion") -> str:
    """Why the model itself is to answer, if the proof at registration found so."""
    from dosel.model.predictor import BACKEND_REASON_TAG, BACKEND_TAG

    return version.tags.get(BACKEND_REASON_TAG, "") if version.tags.get(BACKEND_TAG) == "scikit-learn" else ""


def _settle() -> None:
    """Frees what is left of the model before, then has the collector pass over all that stays.

    Without it, a full collection walks a model and MLflow's modules in the middle of somebody's request.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _about(version: "ModelVersion", manifest: str) -> bytes:
    # JSON has no NaN, which a metric of MLflow can be.
    finite = {name: value for name, value in version.metrics.items() if math.isfinite(value)}
    return msgspec.json.encode({"version": replace(version, metrics=finite), "manifest": manifest})


def _meanwhile(place: _Slot) -> str:
    return f" (version {place.served.version.version} goes on answering)" if place.served else ""


def _open(settings: Settings) -> "Registry":
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger
    from dosel.registry.registry import Registry

    return Registry(settings.tracking_uri, PromotionLedger(connect(settings.warehouse_url)))
