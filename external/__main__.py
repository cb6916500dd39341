"""`python -m external`: checks whether the data API can start in this environment, without starting it."""

import sys

from external.data import load
from external.settings import StartError, read_settings


def main() -> int:
    try:
        data = load(read_settings())
    except StartError as error:
        print(f"data API: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{len(data.rows):,} rows, {data.source}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
