"""Register, gate, promote: the only room that speaks MLflow's model registry."""

from dosel.registry.gate import Verdict, decide
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion

__all__ = ["ModelVersion", "Registry", "Verdict", "decide"]
