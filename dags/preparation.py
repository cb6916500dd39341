"""Airflow's metadata database and training pool: `python -m dags.preparation SLOTS`. Running it again changes nothing.

Both of Airflow's commands run in this process, since importing Airflow takes longer than either of them.
"""

import sys

from dosel.settings import TRAINING_POOL


def main() -> None:
    """Migrate the database, then set the size of the pool to this process's argument."""
    from airflow.__main__ import main as airflow

    slots = sys.argv[1]
    commands = (["db", "migrate"], ["pools", "set", TRAINING_POOL, slots, "Trainings at the same time"])
    for command in commands:
        sys.argv[1:] = command
        airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
