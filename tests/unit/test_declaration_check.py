"""Invalid declarations: each is refused with its file, its field and the remedy; the other use cases still run."""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dosel.usecases import (
    ALL,
    REFUSED,
    Approval,
    Bins,
    Category,
    Choice,
    Family,
    Gate,
    Monitor,
    Number,
    Preprocessing,
    Range,
    RefusedFile,
    Search,
    Shadow,
    Split,
    Target,
    UseCase,
)
from dosel.usecases.check import clashes, problems
from dosel.usecases.reading import read_declarations

SIZE = Number("size", "Size", "m", 0, 9, 3, "")
COLOUR = Category("colour", "Colour", (Choice("red", "Red", ("r",)), Choice("blue", "Blue")), "red", "")
FAMILY = Family("forest", lambda _: None, {"depth": (1, 2)})
GOOD = UseCase(
    name="things",
    title="Things",
    summary="",
    features=(SIZE, COLOUR),
    target=Target("kind", "Kind", {0: "Small", 1: "Big"}),
    experiment="things_experiment",
    model_name="things_model",
    families=(FAMILY,),
    split=Split("things-1"),
)


def test_a_valid_declaration_has_no_problems() -> None:
    assert problems(GOOD) == []
    assert REFUSED == ()
    assert [problems(use_case) for use_case in ALL] == [[]] * len(ALL)


def size(**changes: Any) -> dict[str, Any]:
    return {"features": (replace(SIZE, **changes), COLOUR)}


def colour(**changes: Any) -> dict[str, Any]:
    return {"features": (SIZE, replace(COLOUR, **changes))}


def target(**changes: Any) -> dict[str, Any]:
    return {"target": replace(GOOD.target, **changes)}


def family(**changes: Any) -> dict[str, Any]:
    return {"families": (replace(FAMILY, **changes),)}


OPTUNA = Search("optuna")

REFUSALS: list[tuple[dict[str, Any], str]] = [
    # Names.
    ({"name": "Things"}, "name: 'Things' cannot name tables; write a small letter"),
    ({"name": "my-things"}, "name: 'my-things' cannot name tables"),
    ({"name": ""}, "name: '' cannot name tables"),
    ({"name": "t" * 54}, "at most 53 characters"),
    ({"model_name": "a/b"}, "model_name: MLflow cannot register 'a/b'; write 1 to 128 characters, without / and :"),
    ({"model_name": ""}, "model_name: MLflow cannot register ''"),
    ({"experiment": " "}, "experiment: it is empty; write the name of an experiment"),
    # Columns.
    ({"features": ()}, "features: there are none; declare at least one"),
    (size(name="Größe"), "feature 'Größe': this cannot name a column; write a letter"),
    (size(name="a b"), "feature 'a b': this cannot name a column"),
    (size(name="s" * 65), "at most 64 characters"),
    ({"features": (SIZE, SIZE)}, "feature 'size': 'size' is also a name of feature 'size'"),
    (colour(name="SIZE"), "feature 'SIZE': 'SIZE' is also a name of feature 'size' (letter case"),
    (colour(aliases=("Size",)), "feature 'colour': 'Size' is also a name of feature 'size'"),
    (size(aliases=("col our", "COLOUR")), "feature 'colour': 'colour' is also a name of feature 'size'"),
    (target(name="size"), "target 'size': 'size' is also a name of feature 'size'"),
    (target(aliases=("colour",)), "target 'kind': 'colour' is also a name of feature 'colour'"),
    *(
        (size(name=name), f"feature {name!r}: dosel's tables have a column of their own with this name; write another")
        for name in ("batch_id", "row_no", "Row_Key", "reason", "surplus")
    ),
    (target(name="surplus"), "target 'surplus': dosel's tables have a column"),
    (size(name="model") | {"default": True}, "feature 'model': POST /predict has a field of its own with this name"),
    # Numbers.
    (size(minimum=9, maximum=0), "feature 'size': the minimum 9 is not below the maximum 0; write the smaller number"),
    (size(minimum=9), "feature 'size': the minimum 9 is not below the maximum 9"),
    (size(maximum=float("inf")), "feature 'size': the bounds 0 and inf are not finite numbers; write two numbers"),
    (size(maximum="9"), "feature 'size': the bounds 0 and '9' are not finite numbers"),
    (size(example=10), "feature 'size': the example 10 is invalid; write a whole number from 0 to 9 m"),
    (size(example=2.5), "feature 'size': the example 2.5 is invalid"),
    (size(example=float("nan"), optional=True), "feature 'size': the example nan is invalid; write a whole number"),
    (size(scaling="robust"), "features: 'size': scaling: 'robust' is unknown; write one of 'standard', 'minmax'"),
    # Categories.
    (colour(choices=()), "feature 'colour': it has no choices; declare each value as a Choice"),
    (colour(example="green"), "feature 'colour': the example 'green' is no choice; write one of red, blue"),
    (colour(example="r"), "feature 'colour': the example 'r' is no choice"),
    (
        colour(choices=(*COLOUR.choices, Choice("Red", "Red again"))),
        "feature 'colour': the spelling 'Red' of 'Red' already means 'red' (letter case does not count); remove one",
    ),
    (
        colour(choices=(*COLOUR.choices, Choice("rose", "Rose", ("R",)))),
        "feature 'colour': the spelling 'R' of 'rose' already means 'red'",
    ),
    (
        colour(choices=(Choice("red", "Red", ("Red",)), Choice("blue", "Blue"))),
        "feature 'colour': the spelling 'Red' of 'red' already means 'red'",
    ),
    (colour(choices=(*COLOUR.choices, Choice(" grey", "Grey"))), "the spelling ' grey' never matches"),
    (colour(choices=(*COLOUR.choices, Choice("", "None"))), "the spelling '' never matches"),
    (colour(choices=(*COLOUR.choices, Choice("x" * 65, "X"))), "is too long; write at most 64 characters"),
    # Target.
    (target(labels={0: "Small"}), "target 'kind': labels has 1 classes; declare at least two"),
    (target(labels={0: "Same", 1: "Same"}), "target 'kind': two classes have the same label"),
    (
        target(spellings={"tiny": 7}),
        "target 'kind': the spelling 'tiny' means 7, which is no class; write one of [0, 1]",
    ),
    (target(spellings={"Big": 1, "big": 0}), "target 'kind': the spelling 'big' is declared twice"),
    (target(bins=Bins(1, 0, (0.5,))), "target 'kind': bins: the minimum 1 is not below the maximum 0"),
    (
        target(bins=Bins(0, 1, (2.0,))),
        "target 'kind': bins: the limits (2.0,) do not ascend between minimum and maximum",
    ),
    (
        target(labels={0: "A", 1: "B", 2: "C"}, bins=Bins(0, 1, (0.6, 0.3))),
        "target 'kind': bins: the limits (0.6, 0.3) do not ascend",
    ),
    (
        target(bins=Bins(0, 1, (0.3, 0.6))),
        "target 'kind': bins: 2 limits make 3 classes, and labels has 2; write a label for each",
    ),
    # Canary.
    (
        {"gate": Gate(shadow=Shadow(share=0.05, sticky_by="colour"))},
        "gate.shadow.sticky_by: 'colour' has 2 values, and the challenger gets about 0 of them; a decision needs 100",
    ),
    (
        {"gate": Gate(shadow=Shadow(share=0.5))},
        "gate.shadow: a canary needs both share and sticky_by; write both, or neither",
    ),
    ({"gate": Gate(shadow=Shadow(share=0.5, sticky_by="city"))}, "gate.shadow.sticky_by: 'city' is no feature"),
    # Approvals.
    ({"approval": Approval(people=0)}, "approval.people: 0 is too few; write at least 1"),
    (
        {"approval": Approval(people=2, automatic=3)},
        "approval.automatic: 3 is too small or too large; write a number from 0 to 2",
    ),
    (
        {"approval": Approval(hours=0)},
        "approval.hours: 0 is too short or too long; write a number above 0, at most 720",
    ),
    ({"approval": Approval(hours=float("inf"))}, "approval.hours: inf is too short or too long"),
    # Missing marks.
    ({"missing": ("0",)}, "missing: '0' is a valid size; remove the mark, or narrow the feature's bounds"),
    ({"missing": ("RED",)}, "missing: 'RED' is a choice of colour; remove the mark or the choice"),
    # Families and searches.
    ({"families": ()}, "families: there are none; declare at least one Family"),
    ({"families": (FAMILY, FAMILY)}, "family 'forest': 2 families have this name; write a different name for each"),
    *(
        (
            family(name=name),
            f"family {name!r}: this name is reserved as an alias in MLflow, like challenger, latest, previous, "
            "production, v1 and the model's name; write another",
        )
        for name in ("production", "previous", "latest", "v1", "v20", "things_model")
    ),
    (family(name="my forest"), "family 'my forest': this cannot be an alias; write a small letter"),
    (
        family(space={"weights": ("uniform", "distance")}),
        "'distance' gives certainty on a training row and less beside",
    ),
    (family(space={"depth": ()}), "family 'forest': space: depth: the list of values is empty; write at least one"),
    (family(space={"depth": "ab"}), "family 'forest': space: depth: 'ab' is no list of values; write ('ab',)"),
    (family(space={"depth": 3}), "family 'forest': space: depth: 3 is no list of values; write (3,)"),
    (family(space={"depth": Range(1, 9)}), "space: depth: a grid cannot search a Range; write a list of values"),
    (family(space={"depth": Range(9, 1)}, search=OPTUNA), "space: depth: the minimum 9 is not below the maximum 1"),
    (family(space={"depth": Range(0, 1, log=True)}, search=OPTUNA), "a logarithmic Range cannot begin at 0"),
    (family(search=Search("optuna", trials=0)), "family 'forest': search: trials: 0 is too few; write at least 1"),
    (
        family(search=Search("halving")),  # type: ignore[arg-type]
        "families: 'forest': search.kind: 'halving' is unknown; write one of 'grid', 'optuna'",
    ),
    (
        family(strategy="fast"),
        "families: 'forest': strategy: 'fast' is unknown; write one of 'each', 'forest_prefixes'",
    ),
    # Everything else.
    (
        {"gate": Gate("acuracy")},  # type: ignore[arg-type]
        "gate.metric: 'acuracy' is unknown; write one of 'accuracy', 'balanced_accuracy', 'f1_macro'",
    ),
    (
        {"preprocessing": Preprocessing("mean")},  # type: ignore[arg-type]
        "preprocessing.imputer: 'mean' is unknown; write one of 'none', 'iterative'",
    ),
    ({"folds": 1}, "folds: 1 is too few; write at least 2"),
    ({"max_refused_share": 5}, "max_refused_share: 5 is no share; write a number from 0 to 1"),
    ({"split": Split("s", 1.0)}, "split.test_share: 1.0 is too small or too large; write a number between 0 and 1"),
    ({"gate": Gate(looks=0)}, "gate.looks: 0 is too few; write at least 1"),
    ({"groups": ("nothing",)}, "groups: 'nothing' is no Category; write some of"),
    ({"groups": "kind"}, "groups: 'kind' is no tuple; write ('kind',)"),
    ({"gate": Gate(max_gap=0.1)}, "gate.max_gap: no groups are declared; write groups=(…), or leave max_gap out"),
    ({"gate": Gate(max_gap=2.0)}, "gate.max_gap: 2.0 is no share; write a number from 0 to 1, or None"),
    ({"split": Split("s", 30)}, "split.test_share: 30 is too small or too large"),
    ({"gate": Gate(tolerance=-0.1)}, "gate.tolerance: -0.1 is no share"),
    ({"gate": Gate(min_gain=2)}, "gate.min_gain: 2 is no share"),
    ({"gate": Gate(max_class_drop=float("nan"))}, "gate.max_class_drop: nan is no share"),
    ({"gate": Gate(floor=70)}, "gate.floor: 70 is no share"),
    ({"gate": Gate(confidence=1)}, "gate.confidence: 1 is too small or too large"),
    ({"monitor": Monitor(alpha=0)}, "monitor.alpha: 0 is too small or too large"),
    (
        {"monitor": Monitor(on_harm=("rollback",))},  # type: ignore[arg-type]
        "monitor.on_harm: 'rollback' is unknown; write one of 'notify', 'retrain', 'roll back'",
    ),
    ({"monitor": Monitor(on_harm="retrain")}, "monitor.on_harm: 'retrain' is no list of actions"),  # type: ignore[arg-type]
    ({"monitor": Monitor(on_harm=())}, "monitor.on_harm: () is no list of actions"),
    ({"monitor": Monitor(on_harm=("retrain", "retrain"))}, "monitor.on_harm: 'retrain' is there twice"),
    ({"gate": Gate(resamples=0)}, "gate.resamples: 0 is too few; write at least 1"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[message[:50] for _, message in REFUSALS])
def test_a_problem_names_its_field_and_the_remedy(changes: dict[str, Any], message: str) -> None:
    [problem] = [found for found in problems(replace(GOOD, **changes)) if message in found]
    assert "; " in problem


def test_all_problems_of_a_declaration_are_reported_together() -> None:
    bad = replace(GOOD, folds=0, **size(minimum=9), **family(strategy="fast"))
    assert [problem.split(":")[0] for problem in problems(bad)] == ["feature 'size'", "folds", "families"]


OTHER = replace(GOOD, name="others", experiment="others_experiment", model_name="others_model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "things"}, "name: the use case things has 'things' already; write another"),
        ({"name": "things_model"}, "name: the use case things has 'things_model' already"),
        ({"model_name": "things_model"}, "model_name: the use case things has 'things_model' already"),
        ({"model_name": "things"}, "model_name: the use case things has 'things' already"),
        ({"experiment": "things_experiment"}, "experiment: the use case things has 'things_experiment' already"),
        ({"default": True}, "default: things is the default already; write default=True in one file only"),
    ],
)
def test_two_use_cases_with_one_name_are_refused(changes: dict[str, Any], message: str) -> None:
    first = replace(GOOD, default=True)
    assert clashes(OTHER, [first]) == []
    [problem] = clashes(replace(OTHER, **changes), [first])
    assert message in problem


DECLARED = """
from dataclasses import replace
from tests.unit import test_declaration_check as known
USE_CASE = replace(known.GOOD, name="{name}", experiment="{name}_e", model_name="{name}_m"{more})
"""

Read = Callable[..., tuple[tuple[UseCase, ...], tuple[RefusedFile, ...]]]
_packages = count()


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Read a folder with these files, each given by its text or by its changes to a valid declaration."""
    package = f"declared_{next(_packages)}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def reading(**files: str) -> tuple[tuple[UseCase, ...], tuple[RefusedFile, ...]]:
        for name, text in files.items():
            content = text if "\n" in text else DECLARED.format(name=name, more=text)
            (folder / f"{name}.py").write_text(textwrap.dedent(content))
        use_cases, refused = read_declarations(package, [str(folder)], ["helper"])
        return use_cases, tuple(replace(file, file=Path(file.file).name) for file in refused)

    yield reading
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


def test_valid_files_are_read_in_the_order_of_their_names(read: Read) -> None:
    use_cases, refused = read(b="", a="", _later="raise SystemExit\n", helper="\n")
    assert [use_case.name for use_case in use_cases] == ["a", "b"]
    assert refused == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", r"line 1: '\(' was never closed"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n\nx = undeclared\n", "line 3: NameError: name 'undeclared' is not defined"),
        ("from dosel.usecases import Number\nNumber('a')\n", r"line 2: TypeError: .*missing 6 required"),
        ("x = 1\n", "declares no UseCase; declare one, or begin the file's name with _"),
        (", folds=1", "folds: 1 is too few"),
        (", families=known.FAMILY", "a value has a wrong type: TypeError"),
        (DECLARED.format(name="a", more=""), "name: the use case a has 'a' already"),
    ],
)
def test_an_invalid_file_is_named_and_the_other_use_cases_load(text: str, message: str, read: Read) -> None:
    use_cases, [refused] = read(a="", bad=text, c="")
    assert [use_case.name for use_case in use_cases] == ["a", "c"]
    assert refused.file == "bad.py"
    assert refused.problems
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refused.problems[0])


def test_all_problems_of_a_file_are_in_one_message(read: Read) -> None:
    _, [refused] = read(bad=", folds=1, max_refused_share=2, families=()")
    assert str(refused).splitlines() == [
        "bad.py:",
        "  families: there are none; declare at least one Family",
        "  max_refused_share: 2 is no share; write a number from 0 to 1",
        "  folds: 1 is too few; write at least 2",
    ]


def test_a_use_case_that_another_file_imports_counts_once(read: Read) -> None:
    both = "\nfrom .a import USE_CASE as OTHER\nfrom dataclasses import replace\n"
    mine = 'MINE = replace(OTHER, name="b", experiment="b", model_name="b_model")\n'
    use_cases, refused = read(a="", b=both + mine)
    assert ([use_case.name for use_case in use_cases], refused) == (["a", "b"], ())


def test_dosel_check_imports_nothing_slow() -> None:
    """`make lint` runs `dosel check` each time."""
    heavy = "{'numpy', 'pandas', 'pyarrow', 'sklearn', 'mlflow', 'alembic'}"
    code = f"import sys, dosel.cli, dosel.db.comparison; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
