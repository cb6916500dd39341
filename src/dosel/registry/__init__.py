"""Register, gate, promote: the only room that speaks MLflow's model registry.

`store` is MLflow as it is; `trust` says which files may be loaded; `projection` writes the aliases and the stage;
`registry` moves Production; `gate` decides, on what `scoring` has seen; `gc` clears away what nothing names.
`dosel.registry.scoring` and `gc` are imported from their modules, so that looking at this package costs less.
"""

from dosel.registry.gate import Report, Rule, judge
from dosel.registry.projection import Projection
from dosel.registry.registry import Loaded, Registry
from dosel.registry.store import ModelVersion

__all__ = ["Loaded", "ModelVersion", "Projection", "Registry", "Report", "Rule", "judge"]
