"""CSV: delimiters, decimal commas, headers, damaged files and training files."""

from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dosel.rows.csv import BLOCK_BYTES, Block, CsvReader, read_header, read_texts
from dosel.rows.validation import MAX_INVALID_ROWS, InvalidRows, UnreadableRows
from dosel.sources.table import as_csv
from dosel.usecases import GeneratedRows, LakeRows, PackageRows, UseCase, named
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.employees import EMPLOYEES
from dosel.usecases.penguins import PENGUINS

SHARED = Path(__file__).parents[3] / "shared" / "data"
HEADER = "island,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,sex"
BIRD = "Torgersen,39.1,18.7,181,3750,male"


def read(content: bytes | str, use_case: UseCase = PENGUINS) -> list[Block]:
    return list(CsvReader(use_case).blocks(BytesIO(content.encode() if isinstance(content, str) else content)))


def rows(blocks: list[Block], use_case: UseCase = PENGUINS) -> list[dict[str, Any]]:
    return [block.columns.row(use_case, place) for block in blocks for place in range(len(block.columns))]


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{BIRD}\n",
        f"{HEADER}\r\n{BIRD}",
        f"{HEADER}\r{BIRD}\r",
        f"\n\n{HEADER}\n\n{BIRD}\n\n",
        f"\ufeff{HEADER}\n{BIRD}\n",
        f"{HEADER}\n{BIRD}\n".upper(),
        f"{HEADER}\n{BIRD}\n".replace("bill", "culmen"),
        f"{HEADER}\n{BIRD}\n".replace("_", " "),
        f"{HEADER}\n{BIRD}\n".replace(",", ";"),
        f"{HEADER}\n{BIRD}\n".replace(",", ";").replace("39.1", "39,1").replace("18.7", "18,7"),
        '"' + HEADER.replace(",", '";"') + '"\n' + BIRD.replace(",", ";").replace(".", ",") + "\n",
        "sex,body_mass_g,island,bill_length_mm,bill_depth_mm,flipper_length_mm\nmale,3750,Torgersen,39.1,18.7,181\n",
    ],
    ids=[
        *("plain", "CRLF", "CR", "empty lines", "byte order mark", "capitals", "aliases", "blanks in names"),
        *("semicolons", "decimal commas", "quoted names", "another order"),
    ],
)
def test_a_row_is_read_from_every_csv_dialect(content: str) -> None:
    expected = {"island": "Torgersen", "bill_length_mm": 39.1, "bill_depth_mm": 18.7} | {
        "flipper_length_mm": 181,
        "body_mass_g": 3750,
        "sex": "male",
    }
    assert rows(read(content)) == [expected]


def test_ingest_reads_decimal_commas() -> None:
    content = f"species,{HEADER}\nAdelie,{BIRD}\n".replace(",", ";").replace("39.1", "39,1").encode()
    _, [text] = read_texts(PENGUINS, content)
    assert text == [*BIRD.split(","), "Adelie"]


def test_a_decimal_comma_is_refused_where_commas_separate_columns() -> None:
    with pytest.raises(InvalidRows, match='bill_length_mm: expected a number from 25 to 70 mm, got "39,1"'):
        read(f"{HEADER}\n" + BIRD.replace("39.1", '"39,1"') + "\n")


def test_undeclared_columns_are_returned_unchanged() -> None:
    [block] = read(f'id,{HEADER},,id\n"a ""b"", c\nd",{BIRD},5,é\n')
    assert block.extra.column_names == ["id", "", "id"]
    assert [column.to_pylist() for column in block.extra.columns] == [['a "b", c\nd'], ["5"], ["é"]]


def test_a_csv_without_rows_gives_one_empty_block() -> None:
    [block] = read(f"id,{HEADER}\n\n")
    assert (len(block.columns), block.extra.column_names, block.extra.num_rows) == (0, ["id"], 0)


def test_rows_keep_their_order_and_numbers_across_blocks() -> None:
    count = 3 * BLOCK_BYTES // len(BIRD)
    lines = [BIRD.replace("3750", str(2000 + i % 6000)) for i in range(count)]
    blocks = read("\n".join([HEADER, *lines]))
    assert len(blocks) > 1
    assert [row["body_mass_g"] for row in rows(blocks)] == [2000 + i % 6000 for i in range(count)]
    lines[1], lines[3], lines[-1] = "1,2", BIRD.replace("male", "?"), BIRD.replace("181", "0")
    lines[2] = ""
    with pytest.raises(InvalidRows) as refused:
        read("\n".join([HEADER, *lines]))
    # An empty line is not a row.
    assert [error.row for error in refused.value.errors] == [2, 3, count - 1]
    assert refused.value.errors[0].message == "row 2: expected 6 values, got 2"


@pytest.mark.parametrize("bad", ["1,2", BIRD.replace("181", "0")], ids=["lines of another width", "values"])
def test_reading_ends_at_the_hundredth_invalid_row(bad: str) -> None:
    many = "\n".join([HEADER, *[bad] * 500]) + "\n" + "x" * 5
    with pytest.raises(InvalidRows) as refused:
        read(many)
    assert [error.row for error in refused.value.errors] == list(range(1, MAX_INVALID_ROWS + 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not CSV: it is empty"),
        (b"\xff\xfei\x00", "not CSV in UTF-8"),
        (HEADER.encode() + b"\n\xe9", "not CSV in UTF-8"),
        (f"{HEADER}\n{BIRD}\n{BIRD.replace('male', chr(34) + 'male')}\n".encode(), r"a quote \(\"\) is not closed"),
        (f'"{HEADER}\n{BIRD}\n'.encode(), "not CSV"),
        (b"x" * 100_000, "its first line is longer than 65,536 bytes"),
        (f"{HEADER},{','.join('x' * 301)}\n".encode(), "CSV with 307 columns; at most 306 are accepted"),
    ],
)
def test_an_unreadable_csv_is_refused_with_the_reason(content: bytes, message: str) -> None:
    with pytest.raises(UnreadableRows, match=message):
        read(content)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace("sex", "gender"), "got one without sex: island, bill_length_mm"),
        (f"{HEADER},culmen_length_mm", "got one with two columns for bill_length_mm"),
        ("species", "got one without island, bill_length_mm"),
    ],
)
def test_a_header_must_name_each_declared_column_once(header: str, message: str) -> None:
    with pytest.raises(InvalidRows, match=message):
        read_header(PENGUINS.features, header.encode())


def test_read_header_accepts_a_chunk_that_ends_within_a_character() -> None:
    assert read_header(PENGUINS.features, f"{HEADER}\né".encode()[:-1]).size == len(HEADER) + 1


def test_a_line_of_another_width_than_the_header_keeps_its_width() -> None:
    content = f"species,{HEADER},note\nAdelie,{BIRD},x\nAdelie,{BIRD}\n"
    _, texts = read_texts(PENGUINS, content.encode())
    assert [len(text) for text in texts] == [7, 8]


def training_file(use_case: UseCase) -> bytes:
    match use_case.rows:
        case PackageRows(package, path):
            return (files(package) / path).read_bytes()
        case LakeRows(otherwise=GeneratedRows() as generated):
            return as_csv(generated.generate())
    raise AssertionError(use_case.name)


@pytest.mark.parametrize("use_case", [PENGUINS, EMPLOYEES], ids=lambda u: u.name)
def test_the_csv_reader_and_ingest_accept_the_same_rows(use_case: UseCase) -> None:
    agree(use_case, training_file(use_case))


@pytest.mark.parametrize(
    ("name", "rows_file"),
    [
        ("covertype", "covertype.csv"),
        ("penguins", "penguins_size.csv"),
        ("employees", "enriched_employee_dataset.csv"),
    ],
)
def test_a_published_file_is_read_unchanged(name: str, rows_file: str) -> None:
    if not (SHARED / rows_file).exists():
        pytest.skip(f"{rows_file} lies beside the repository only on some machines")
    agree(named(name), (SHARED / rows_file).read_bytes())


def agree(use_case: UseCase, content: bytes) -> None:
    """Check that ingest and bulk requests refuse the same rows, and read the others alike."""
    from dosel.quality import check

    header, texts = read_texts(use_case, content)
    checked = check(use_case, texts, "course" if use_case is COVERTYPE else "")
    features = [f"{name}: " for name in use_case.feature_names]
    refused = [i + 1 for i, reason in checked.refused.items() if any(name in reason for name in features)]
    if refused:
        with pytest.raises(InvalidRows) as bad:
            read(content, use_case)
        assert sorted({error.row or 0 for error in bad.value.errors}) == refused
        lines = content.splitlines(keepends=True)
        content = b"".join(line for i, line in enumerate(lines) if i not in refused)
    blocks = read(content, use_case)
    assert sum(len(block.columns) for block in blocks) == len(texts) - len(refused)
    declared = {header.names[header.places[name]] for name in use_case.feature_names}
    assert [name for name in header.names if name not in declared] == blocks[0].extra.column_names
