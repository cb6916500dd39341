"""A model that answers, and the errors of one that does not."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from dosel.errors import NotExplainable, RegistryError

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already answer /healthz.
    from dosel.explain import Explainer
    from dosel.model.predictor import Predictor
    from dosel.registry.store import ModelVersion

STALE = "X-Model-Stale"
"""Header of an answer by a version that could not be confirmed to be in Production."""


class NotReady(RegistryError):
    """No model answers for now; the message names what the API is waiting for."""


class Overloaded(RegistryError):
    """A queue is full; the message names it."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers. It never changes: another version is another `LoadedModel`.

    Attributes:
        manifest: digest of the version's manifest.
        read_reference: gives the version's training rows, as `dosel.model.reference` wrote them; None without any.
    """

    predictor: "Predictor"
    version: "ModelVersion"
    loaded_at: datetime
    manifest: str = ""
    read_reference: Callable[[], bytes | None] = lambda: None

    @cached_property
    def explainer(self) -> "Explainer":
        """Built on first use, since it takes time and memory that predictions do not need. For one thread only.

        Raises:
            NotExplainable: the version has no training rows.
        """
        from dosel.explain import Explainer

        content = self.read_reference()
        if content is None:
            raise NotExplainable(
                f"{self.version.name} version {self.version.version} was registered without its training rows, before "
                "dosel could explain; the next version that is trained has them"
            )
        return Explainer(self.predictor, content)

    @property
    def has_explained(self) -> bool:
        """Whether the explainer has been built."""
        return "explainer" in self.__dict__

    @cached_property
    def model_suffix(self) -> bytes:
        """The end of an answer's JSON object, which names the model."""
        version = self.version
        reference = {"name": version.name, "version": version.version, "run_id": version.run_id}
        return b',"model":' + msgspec.json.encode(reference) + b"}"
