"""An answer of a version in shadow."""

from typing import NamedTuple


class ShadowAnswer(NamedTuple):
    """The answer of a model's shadow `number` to row `row_no`, from 1, of a request.

    `at` is seconds since 1970. `probabilities` are each class's by label, as JSON, and `answered` is the code of the
    class. `latency` and the champion's are milliseconds of processor time for one row: `latency` is measured on one of
    the rows that were answered together, and the champion's is None for rows of a bulk request.
    """

    model: str
    number: int
    request_id: str
    row_no: int
    at: float
    probabilities: str
    answered: int
    latency: float
    champion_latency: float | None
