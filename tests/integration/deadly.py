"""A classifier that kills the process which fits it, as the kernel does where memory is short."""

import os
import signal
from typing import Any

from sklearn.tree import DecisionTreeClassifier


class Deadly(DecisionTreeClassifier):  # type: ignore[misc]
    """Kills its process if `max_depth` is 13."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> "Deadly":
        """Fit as the parent does, or kill."""
        if self.max_depth == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y, sample_weight, check_input)  # type: ignore[no-any-return]
