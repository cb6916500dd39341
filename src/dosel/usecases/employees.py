"""Burnout of employees (HackerEarth's "Are Your Employees Burning Out?", enriched with working conditions).

The employee's identifier and date of joining are not stored. The rate is divided into three ranges, on which people can
act.
"""

import random
from collections.abc import Iterator
from typing import Any

from dosel.usecases._estimators import k_neighbours, lightgbm
from dosel.usecases.declaration import (
    Family,
    Gate,
    GeneratedRows,
    LakeRows,
    Preprocessing,
    Range,
    Search,
    Split,
    UseCase,
)
from dosel.usecases.features import Bins, Category, Choice, Number, Target

MADE = 4_000
_GENDERS = (Choice("Female", "Female", ("f",)), Choice("Male", "Male", ("m",)))
_FATIGUE = "How tired of the work, as the employee says; 10 is completely."
_ALLOCATED = "Working hours a day that are allocated to the employee."
_COMPANIES = (Choice("Service", "Service"), Choice("Product", "Product"))


def _svm(seed: int) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    # One SVM, fitted to all rows; the folds only calibrate it.
    return CalibratedClassifierCV(SVC(random_state=seed, cache_size=500), ensemble=False, cv=3)


def _made() -> Iterator[dict[str, Any]]:
    """Generate similar rows: the rate depends on fatigue and resources, and some values are missing."""
    rng = random.Random(0)
    for _ in range(MADE):
        designation = min(5, max(0, round(rng.gauss(2.2, 1.1))))
        resources = min(10, max(1, round(1.5 * designation + rng.gauss(1.2, 0.9))))
        fatigue = min(10.0, max(0.0, round(rng.gauss(2.4 + 0.75 * resources, 1.1), 1)))
        rate = min(1.0, max(0.0, 0.055 * resources + 0.045 * fatigue - 0.05 + rng.gauss(0, 0.05)))
        yield {
            "Gender": rng.choice(("Female", "Male")),
            "Company Type": rng.choice(("Service", "Service", "Product")),
            "WFH Setup Available": rng.choice(("Yes", "No")),
            "Designation": designation,
            "Resource Allocation": "" if rng.random() < 0.06 else resources,
            "Mental Fatigue Score": "" if rng.random() < 0.09 else fatigue,
            "Burn Rate": "" if rng.random() < 0.05 else round(rate, 2),
            "Years in Company": 16,
            "Work Hours per Week": min(60, max(35, round(38 + 1.5 * resources + rng.gauss(0, 3)))),
            "Sleep Hours": round(min(9.0, max(3.8, rng.gauss(7.6 - 0.3 * resources, 0.5))), 1),
            "Work-Life Balance Score": rng.randint(1, 5),
            "Manager Support Score": rng.randint(1, 5),
            "Deadline Pressure Score": rng.randint(1, 5),
            "Team Size": rng.randint(3, 19),
            "Recognition Frequency": rng.randint(0, 5),
        }


def _score(name: str, title: str, example: int, help_: str) -> Number:
    return Number(name, title, "", 1, 5, example, f"{help_}, from 1 to 5.")


def _yes_no(name: str, title: str, example: str, help_: str) -> Category:
    return Category(name, title, (Choice("Yes", "Yes", ("y",)), Choice("No", "No", ("n",))), example, help_)


EMPLOYEES = UseCase(
    name="employees",
    title="Employees' burnout",
    summary="How close an employee is to burnout, from working conditions and the employee's own ratings.",
    features=(
        Category("gender", "Gender", _GENDERS, "Female", "Gender of the employee."),
        Category("company_type", "Company type", _COMPANIES, "Service", "What the company sells."),
        _yes_no("wfh_setup_available", "Can work from home", "No", "Whether working from home is set up."),
        Number("designation", "Designation", "", 0, 5, 2, "Rank in the company; 5 is the highest."),
        Number("resource_allocation", "Resource allocation", "h", 0, 24, 5, _ALLOCATED, optional=True),
        Number("mental_fatigue_score", "Mental fatigue", "", 0, 10, 6.1, _FATIGUE, integer=False, optional=True),
        Number("years_in_company", "Years in the company", "years", 0, 60, 16, "Years since joining."),
        Number("work_hours_per_week", "Work hours a week", "h", 0, 120, 49, "Hours worked in a week."),
        Number("sleep_hours", "Sleep", "h", 0, 24, 6.2, "Hours of sleep a night.", integer=False),
        _score("work_life_balance_score", "Work-life balance", 2, "How well work and life go together"),
        _score("manager_support_score", "Manager's support", 3, "How much the manager helps"),
        _score("deadline_pressure_score", "Deadline pressure", 4, "How much deadlines press"),
        Number("team_size", "Team size", "people", 1, 1000, 11, "People in the team."),
        Number("recognition_frequency", "Recognition", "", 0, 31, 2, "How often in a month work is recognised."),
    ),
    target=Target("burn_rate", "Burnout", {0: "Low", 1: "Medium", 2: "High"}, bins=Bins(0, 1, (0.33, 0.66))),
    experiment="employees_training_experiment",
    model_name="employees_burnout",
    rows=LakeRows("enriched_employee_dataset.csv", GeneratedRows(_made, f"{MADE:,} rows are generated instead")),
    missing=("", "NA"),
    # A twentieth of the rows lacks the rate and cannot be used.
    max_refused_share=0.10,
    preprocessing=Preprocessing(imputer="iterative"),
    processed=True,
    families=(
        Family(
            "knn",
            k_neighbours,
            {"n_neighbors": Range(5, 60, log=True, integer=True), "p": (1, 2)},
            search=Search("optuna"),
        ),
        Family(
            "svm",
            _svm,
            {"estimator__C": Range(0.3, 10, log=True), "estimator__gamma": Range(0.01, 0.3, log=True)},
            search=Search("optuna"),
        ),
        Family(
            "lightgbm",
            lightgbm,
            {
                "n_estimators": Range(80, 300, integer=True),
                "num_leaves": Range(7, 63, log=True, integer=True),
                "learning_rate": Range(0.02, 0.2, log=True),
                "min_child_samples": Range(5, 60, integer=True),
            },
            search=Search("optuna"),
        ),
    ),
    split=Split(salt="employees-1"),
    groups=("gender",),
    gate=Gate("f1_macro", min_gain=0.001, tolerance=0.01, max_class_drop=0.05, floor=0.70),
)
