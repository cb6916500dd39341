"""What MLflow shows of a use case, for its experiment and its registered model: made from the declaration."""

from dosel.usecases import UseCase


def describe(use_case: UseCase) -> str:
    """The use case in Markdown: what it predicts, from what, by which families and rules."""
    gate, target = use_case.gate, use_case.target
    families = ", ".join(family.name for family in use_case.families)
    metric = gate.metric.replace("_", " ")
    lines = (
        f"predicts: {target.title}: {', '.join(target.labels.values())}",
        f"from: {len(use_case.numbers)} numbers and {len(use_case.categories)} categories",
        f"families: {families}; the best one by cross-validation ({metric}, {use_case.folds} folds) is the challenger",
        f"figures `holdout_…`: of the held-out rows, {use_case.split.test_share:.0%} of all",
        f"gate: {metric} at least {gate.floor:g}, and {gate.min_gain:g} higher than that of the version in Production",
        f"`dosel history {use_case.name}` shows what was in Production, and why",
    )
    bullets = "\n".join(f"- {line}" for line in lines)
    # Plain at first, since MLflow's list of experiments shows no Markdown.
    return f"{use_case.title}. {use_case.summary}\n\n{bullets}"
