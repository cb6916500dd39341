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
        f"gate: {'; '.join(gate_rules(use_case))}",
        f"`dosel history {use_case.name}` shows what was in Production, and why",
    )
    bullets = "\n".join(f"- {line}" for line in lines)
    # Plain at first, since MLflow's list of experiments shows no Markdown.
    return f"{use_case.title}. {use_case.summary}\n\n{bullets}"


def gate_rules(use_case: UseCase) -> tuple[str, ...]:
    """What a challenger needs to enter Production, by the declaration."""
    gate, people = use_case.gate, use_case.approval.automatic
    metric = gate.metric.replace("_", " ")
    rules = [
        "it loads and answers the example as in its training",
        "neither it nor the version in Production was trained on the held-out rows",
        f"{metric} at least {gate.floor:g}, and higher than by always predicting the most frequent class",
        f"{metric} at least {gate.min_gain:g} higher than that of the version in Production",
        f"a loss of more than {gate.tolerance:g} is excluded with {gate.confidence:.0%} confidence, over all "
        f"{gate.looks} looks at one holdout together",
        f"no class's recall falls by more than {gate.max_class_drop:g}",
    ]
    if gate.max_gap is not None:
        rules.append(f"the accuracies of a group's values lie at most {gate.max_gap:g} apart")
    if gate.shadow is not None:
        rules.append("after that, it answers live rows in shadow, and they decide")
    if people:
        rules.append(f"after that, {people} {'person' if people == 1 else 'people'} must agree")
    return tuple(rules)
