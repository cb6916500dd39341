"""The figures that `make bench-all` writes to docs/figures.md."""

import pytest

from benchmarks import all as every_benchmark

PRINTED = [
    "warming up",
    "| rows | seconds |",
    "|---:|---:|",
    "| 10 | 1.5 |",
    "",
    "| other |",
    "done",
    'RESULT {"rate": 3}',
]


def test_part_of_a_benchmark_has_its_tables_and_the_figures_of_its_last_line() -> None:
    assert every_benchmark.part(PRINTED, "a day.") == (
        "Measured on a day.\n\n| rows | seconds |\n|---:|---:|\n| 10 | 1.5 |\n\n| other |\n\nFigures: `rate` 3."
    )


def test_benchmark_without_a_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        every_benchmark.part(PRINTED[:-1], "a day.")


def test_only_the_named_part_of_the_page_changes() -> None:
    page = "# Figures\n<!-- measured a -->\nold\n<!-- /measured a -->\n<!-- measured b -->\nold\n<!-- /measured b -->\n"
    assert every_benchmark.with_part(page, "b", "new") == page.replace("b -->\nold", "b -->\nnew")


@pytest.mark.parametrize("name", every_benchmark.BENCHMARKS)
def test_page_has_a_part_for_each_benchmark(name: str) -> None:
    assert every_benchmark.with_part(every_benchmark.PAGE.read_text(), name, "new")
