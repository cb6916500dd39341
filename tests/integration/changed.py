"""A declaration that changed after rows were stored, and a process that opens its tables.

python changed.py URL      waits for a line on its input before it starts
"""

import sys
from dataclasses import replace

from dosel.db.engine import connect
from dosel.usecases import Category, Choice, Feature, Number, UseCase
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore

AGE = Number("age", "Age", "years", 0, 40, 3, "Age of the penguin.", optional=True)
NEST = Category("nest", "Nest", (Choice("rock", "Rock"), Choice("ice", "Ice")), "rock", "Its nest.", optional=True)


def with_features(*features: Feature) -> UseCase:
    return replace(PENGUINS, features=features)


EXTENDED = with_features(*PENGUINS.features, AGE, NEST)


def main(url: str) -> None:
    engine = connect(url)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    BatchStore(engine, EXTENDED)
    print("opened", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
