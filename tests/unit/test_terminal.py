"""The tables of `dosel` on a terminal."""

from io import StringIO

from rich.console import Console

from dosel.terminal import refused
from dosel.warehouse.records import RefusedRow


def test_a_refused_row_has_its_number_from_1() -> None:
    """As the errors of a CSV have; the records in JSON and in a pipe count from 0, as the API does."""
    console = Console(record=True, width=100, file=StringIO())
    console.print(refused([RefusedRow(7, "group 6", "e1", 1, 3, "bill: expected more", {"bill": "1"}, None)]))
    assert console.export_text().splitlines()[1].split() == ["7", "4", "bill:", "expected", "more", "1"]
