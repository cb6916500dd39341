"""The columnar form of rows: numbers as float64, each category as its value's place among the declared values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dosel.usecases import Category, Number, UseCase

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

UNKNOWN = -1
"""The code of a category's value that is missing or not declared."""


@dataclass(frozen=True)
class Columns:
    """Rows of a use case, columns in declared order.

    Attributes:
        numbers: of shape (rows, declared numbers); NaN where a value is missing.
        codes: each category's place in its declared values, of shape (rows, declared categories); `UNKNOWN` where the
            value is missing or not declared.
    """

    numbers: Floats
    codes: Codes

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice | Codes) -> "Columns":
        return Columns(self.numbers[rows], self.codes[rows])

    @classmethod
    def of(cls, use_case: UseCase, data: Any) -> Self:
        """Convert canonical values; they are not checked.

        Args:
            data: gives each feature's values by its name: a DataFrame, an Arrow table, a mapping of lists.
        """
        numbers = [np.asarray(data[number.name], np.float64) for number in use_case.numbers]
        codes = [codes_of(category, data[category.name]) for category in use_case.categories]
        return cls.stack(numbers, codes, len(data[use_case.feature_names[0]]))

    @classmethod
    def of_rows(cls, use_case: UseCase, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Convert mappings that hold a canonical value for every feature; they are not checked."""
        listed = list(rows)
        return cls.of(use_case, {name: [row[name] for row in listed] for name in use_case.feature_names})

    @classmethod
    def of_matrix(cls, use_case: UseCase, matrix: Floats) -> Self:
        """The rows of a matrix that `matrix` returned."""
        is_number = np.array([isinstance(feature, Number) for feature in use_case.features])
        return cls(matrix[:, is_number], matrix[:, ~is_number].astype(np.intp))

    @classmethod
    def stack(cls, numbers: list[Floats], codes: list[Codes], rows: int) -> Self:
        """Put columns, each of shape (rows,), beside each other."""
        # Transposed, so that each column stays in one piece: a tenth of the time that copying row by row takes.
        return cls(
            np.array(numbers, np.float64).reshape(len(numbers), rows).T,
            np.array(codes, np.intp).reshape(len(codes), rows).T,
        )

    def matrix(self, use_case: UseCase) -> Floats:
        """All columns as float64 in the order of the features, of shape (rows, features); codes as they are."""
        numbers, codes = iter(self.numbers.T), iter(self.codes.T)
        columns = [next(numbers if isinstance(feature, Number) else codes) for feature in use_case.features]
        return np.column_stack(columns).astype(np.float64, copy=False)

    def row(self, use_case: UseCase, place: int = 0) -> dict[str, float | str | None]:
        """The canonical values of one row by feature; None where a value is missing."""
        numbers, codes = iter(self.numbers[place].tolist()), iter(self.codes[place].tolist())
        values: dict[str, float | str | None] = {}
        for feature in use_case.features:
            if isinstance(feature, Number):
                number = next(numbers)
                values[feature.name] = None if np.isnan(number) else number
            else:
                code = next(codes)
                values[feature.name] = None if code == UNKNOWN else feature.values[code]
        return values


def codes_of(category: Category, values: Any) -> Codes:
    """The code of each canonical value, of shape (rows,); `UNKNOWN` for any other text and for None."""
    if isinstance(values, list):
        # `pa.array` imports pandas, which takes longer than the rest of an API's start.
        places = {value: code for code, value in enumerate(category.values)}
        return np.array([places.get(value, UNKNOWN) for value in values], np.intp)
    # Imported here: the process that writes the prediction log needs only the arrays, and stays a third smaller.
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, pa.string(), from_pandas=True)
    found = pc.index_in(values.cast(pa.string()), value_set=pa.array(category.values, pa.string()))
    codes: Codes = found.fill_null(UNKNOWN).to_numpy(zero_copy_only=False).astype(np.intp)
    return codes
