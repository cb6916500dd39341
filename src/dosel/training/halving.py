"""scikit-learn's successive halving, told as it goes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# scikit-learn has it importable only for those who say that they know it may change.
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV

from dosel.training.search import CandidateCallback, ScoredCandidate, figures_at, plain


class HalvingSearchCV(HalvingGridSearchCV):  # type: ignore[misc]
    """Every candidate on few rows, the better ones on more: a candidate is told once a round it took part in."""

    watcher: CandidateCallback | None = None

    def _run_search(self, evaluate_candidates: Callable[..., Mapping[str, Any]], *, callback_ctx: Any) -> None:
        told: list[float] = []

        def evaluate(candidates: Sequence[Mapping[str, Any]], *arguments: Any, **named: Any) -> Mapping[str, Any]:
            results = evaluate_candidates(candidates, *arguments, **named)
            scores = results["mean_test_score"]
            for i in range(len(told), len(scores)):
                told.append(float(scores[i]))
                if self.watcher is not None:
                    params = plain(results["params"][i]) | {"n_resources": int(results["n_resources"][i])}
                    figures = figures_at(results, i)
                    self.watcher(
                        ScoredCandidate(i + 1, self._expected(len(told)), i + 1, params, told[i], max(told), figures)
                    )
            return results

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _expected(self, least: int) -> int:
        """How many there will be, as far as the rounds planned so far tell."""
        count = total = self.n_candidates_[0] if hasattr(self, "n_candidates_") else least
        while count > self.factor:
            count = -(-count // self.factor)
            total += count
        return max(total, least)
