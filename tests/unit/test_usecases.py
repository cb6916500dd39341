"""Declarations: the properties that every use case must have."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import chain, pairwise

import pytest
from sklearn.model_selection import ParameterGrid

from dosel.errors import UnknownUseCase
from dosel.quality import check
from dosel.rows.validation import Validator
from dosel.usecases import ALL, DEFAULT, Bins, Number, Range, Target, UseCase, chosen, named
from dosel.usecases.covertype import COVERTYPE

each = pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)


@pytest.mark.parametrize("attribute", ["name", "title", "experiment", "model_name"])
def test_no_two_use_cases_share_a_name(attribute: str) -> None:
    values = [getattr(use_case, attribute) for use_case in ALL]
    assert len(set(values)) == len(values)


def test_the_default_use_case_is_declared() -> None:
    assert DEFAULT in ALL


@each
def test_a_use_case_is_found_by_its_name(use_case: UseCase) -> None:
    assert named(use_case.name) is use_case


def test_an_unknown_use_case_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownUseCase, match=r"'covertyp'.*covertype"):
        named("covertyp")


@pytest.mark.parametrize(
    ("names", "expected"),
    [("", list(ALL)), ("penguins", [named("penguins")]), (" penguins , covertype,", [named("penguins"), COVERTYPE])],
)
def test_a_setting_names_the_use_cases_that_run(names: str, expected: list[UseCase]) -> None:
    assert list(chosen(names)) == expected


def test_an_unknown_use_case_in_the_setting_is_an_error() -> None:
    with pytest.raises(UnknownUseCase, match="'iris'; there are: covertype"):
        chosen("penguins,iris")


@each
def test_columns_are_distinct_and_end_with_the_target(use_case: UseCase) -> None:
    assert use_case.columns == (*[f.name for f in use_case.features], use_case.target.name)
    assert len({column.casefold() for column in use_case.columns}) == len(use_case.columns)


@each
def test_names_are_valid_in_tables_and_paths(use_case: UseCase) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,40}", use_case.name)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", column) for column in use_case.columns)


@each
def test_no_two_choices_share_a_spelling(use_case: UseCase) -> None:
    for category in use_case.categories:
        written = [s.casefold() for choice in category.choices for s in (choice.value, *choice.aliases)]
        assert len(set(written)) == len(written) == len(category.spellings), category.name


@each
def test_each_choice_fits_into_its_database_column(use_case: UseCase) -> None:
    assert max(map(len, chain.from_iterable(c.values for c in use_case.categories)), default=0) <= 64


@each
def test_bounds_are_in_order_and_contain_the_example(use_case: UseCase) -> None:
    for number in use_case.numbers:
        assert number.minimum < number.maximum
    for category in use_case.categories:
        assert category.example in category.values
    assert Validator(use_case).check_rows([use_case.example])[1] == {}


@each
def test_the_example_is_a_valid_row_of_any_class(use_case: UseCase) -> None:
    target = use_case.target
    if target.bins:
        edges = (target.bins.minimum, *target.bins.at, target.bins.maximum)
        spelled = [(low + high) / 2 for low, high in pairwise(edges)]
    else:
        spelled = list(target.labels)
    checked = check(use_case, [[*use_case.example.values(), text] for text in spelled], "")
    assert checked.refused == {}
    assert checked.accepted[target.name].tolist() == list(target.labels)


@each
def test_class_labels_are_distinct(use_case: UseCase) -> None:
    labels = use_case.target.labels
    assert len(set(labels.values())) == len(labels) >= 2


@each
def test_every_candidate_can_be_built_with_the_seed(use_case: UseCase) -> None:
    assert use_case.families
    for candidate in use_case.families:
        seeds = {name: v for name, v in candidate.build(11).get_params().items() if name.endswith("random_state")}
        assert set(seeds.values()) <= {11}
        ends = {n: (v.minimum, v.maximum) if isinstance(v, Range) else tuple(v) for n, v in candidate.space.items()}
        for params in ParameterGrid(ends):
            candidate.build(0).set_params(**params)


def test_covertype_keeps_the_names_that_its_clients_use() -> None:
    assert COVERTYPE.columns == (
        "Elevation",
        "Aspect",
        "Slope",
        "Horizontal_Distance_To_Hydrology",
        "Vertical_Distance_To_Hydrology",
        "Horizontal_Distance_To_Roadways",
        "Hillshade_9am",
        "Hillshade_Noon",
        "Hillshade_3pm",
        "Horizontal_Distance_To_Fire_Points",
        "Wilderness_Area",
        "Soil_Type",
        "Cover_Type",
    )
    assert [len(category.choices) for category in COVERTYPE.categories] == [4, 40]
    assert list(COVERTYPE.target.labels) == [1, 2, 3, 4, 5, 6, 7]
    assert (COVERTYPE.experiment, COVERTYPE.model_name) == ("covertype_training_experiment", "modelo_covertype_vf")
    assert len(ParameterGrid(dict(COVERTYPE.families[0].space))) == 27


SLOPE = Number("Slope", "Slope", "°", 0, 90, 17, "")
SHARE = Number("Share", "Share", "", -0.5, 0.5, 0, "", integer=False)


def test_features_describe_their_expected_values() -> None:
    assert SLOPE.describe_expected() == "a whole number from 0 to 90 °"
    assert SHARE.describe_expected() == "a number from -0.5 to 0.5"
    assert COVERTYPE.categories[0].describe_expected() == "one of Rawah, Neota, Commanche, Cache"


def test_declarations_import_nothing_heavy() -> None:
    """Airflow imports the declarations each time it parses its DAGs."""
    heavy = "{'numpy', 'pandas', 'sklearn', 'mlflow', 'sqlalchemy', 'httpx', 'pydantic'}"
    code = f"import sys, dosel.usecases; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@each
def test_family_names_are_valid_aliases(use_case: UseCase) -> None:
    names = [family.name for family in use_case.families]
    assert len(set(names)) == len(names) >= 2
    # These aliases are reserved by MLflow, set by the projection, or equal to the model's name.
    assert not {"latest", "production", "previous", use_case.model_name} & set(names)
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in names)


@each
def test_no_missing_mark_is_a_valid_value(use_case: UseCase) -> None:
    required = replace(use_case, features=tuple(replace(f, optional=False) for f in use_case.features))
    for mark in use_case.missing:
        _, errors = Validator(required).check_rows([dict.fromkeys(use_case.feature_names, mark)])
        assert [error.field for error in errors[0]] == list(use_case.feature_names)


RATE = Target("rate", "Rate", {0: "Low", 1: "Medium", 2: "High"}, bins=Bins(0, 1, (0.33, 0.66)))
WORDS = Target("species", "Species", {3: "Adelie", 5: "Gentoo"}, {"shifted": 2}, {"Adelie": 3, "Pygoscelis papua": 5})


@pytest.mark.parametrize(
    ("target", "text", "coding", "code"),
    [
        (RATE, "0", "", 0),
        (RATE, "0.33", "", 0),
        (RATE, "0.34", "", 1),
        (RATE, "0.66", "", 1),
        (RATE, "1.0", "", 2),
        (RATE, "1.01", "", None),
        (RATE, "-0.1", "", None),
        (RATE, "", "", None),
        (RATE, "Low", "", None),
        (WORDS, " adelie ", "", 3),
        (WORDS, "PYGOSCELIS PAPUA", "", 5),
        (WORDS, "Gentoo", "", None),
        (WORDS, "3", "", 3),
        (WORDS, "3", "shifted", 5),
        (WORDS, "4", "", None),
    ],
)
def test_a_target_reads_codes_labels_and_bins(target: Target, text: str, coding: str, code: int | None) -> None:
    assert target.code(text, coding) == code


def test_with_trials_changes_optuna_searches_only() -> None:
    optuna = [family for u in ALL for family in u.with_trials(3).families if family.search.kind == "optuna"]
    assert {family.search.trials for family in optuna} == {3}
    assert COVERTYPE.with_trials(3) == COVERTYPE
    assert all(use_case.with_trials(0) is use_case for use_case in ALL)
