"""Measures ingest and reading for training beside common alternatives, on one server.

python -m benchmarks.ingest [--rows 116000] [--total 581012] [--rounds 3]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track
from sqlalchemy import Engine, create_engine, text

from benchmarks.installation import OneByOne, Rows, in_a_process, local_server, peak_mb
from dosel.db.engine import connect
from dosel.db.tables import BATCHES, tables_of
from dosel.embedded.local_databases import MariaDB
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.reset import drop
from external.columns import as_words
from external.generator import generate

ROW_BY_ROW = 5_000
"""Rows for the slowest alternative: enough to measure its speed."""

BATCHES_OF_ALL = 10

TABLES = tables_of(COVERTYPE)
COLUMNS = ", ".join(f"`{name}`" for name in COVERTYPE.columns)
MARKS = ", ".join(["%s"] * len(COVERTYPE.columns))
INSERT = f"INSERT INTO bare ({COLUMNS}) VALUES ({MARKS})"


@dataclass(frozen=True)
class Alternative:
    """A way to write or read rows: its median rows per second."""

    name: str
    rate: float


class Bench:
    """The alternatives for writing and reading, each on empty tables."""

    def __init__(self, server: MariaDB, rows: Rows) -> None:
        self._url = server.url()
        self._rows = rows
        self._settings = Settings(warehouse_url=self._url)
        # The alternatives need local_infile; dosel enables it on its loading connection only.
        self._plain = create_engine(server.url(dialect="mysql+pymysql"), connect_args={"local_infile": True})

    def bare(self) -> None:
        """One typed table without keys."""
        names = {category.name for category in COVERTYPE.categories}
        columns = ", ".join(f"`{n}` {'VARCHAR(64)' if n in names else 'DOUBLE'} NOT NULL" for n in COVERTYPE.columns)
        with self._plain.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS bare")
            connection.exec_driver_sql(f"CREATE TABLE bare ({columns}) ENGINE=InnoDB CHARSET utf8mb4")

    def ours(self) -> None:
        """Create dosel's tables, empty."""
        engine = connect(self._url)
        drop(engine, COVERTYPE)
        engine.dispose()
        self._pipeline = Pipeline(COVERTYPE, self._settings)

    def row_by_row(self) -> int:
        self.bare()
        with self._plain.begin() as connection:
            for row in self._rows[:ROW_BY_ROW]:
                connection.exec_driver_sql(INSERT, tuple(row))
        return ROW_BY_ROW

    def sqlalchemy_many(self) -> int:
        marks = ", ".join(f":{name}" for name in COVERTYPE.columns)
        with self._plain.begin() as connection:
            values = [dict(zip(COVERTYPE.columns, row, strict=True)) for row in self._rows]
            connection.execute(text(f"INSERT INTO bare ({COLUMNS}) VALUES ({marks})"), values)
        return len(self._rows)

    def pymysql_many(self) -> int:
        with self._plain.begin() as connection:
            connection.exec_driver_sql(INSERT, [tuple(row) for row in self._rows])
        return len(self._rows)

    def load_data(self) -> int:
        """Write a file in the fastest way, and load it into one table without keys."""
        with self._plain.begin() as connection:
            self._load(connection, map("\t".join, self._rows), "bare", COLUMNS)
        return len(self._rows)

    def load_data_same_writes(self) -> int:
        """Load the rows into raw, clean and ledger in one transaction, unchecked; keys are Python's hashes."""
        lines = [*map("\t".join, self._rows)]
        numbered = (f"{i}\t{line}" for i, line in enumerate(lines))
        keyed = (f"{i}\t{hash(line)}\t{line}" for i, line in enumerate(lines))
        with self._plain.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO batches VALUES (1, 'covertype', 'g', 'e', 1, 'x', NOW(), %s, %s, 0, 0, '')",
                (len(lines), len(lines)),
            )
            self._load(connection, numbered, TABLES.raw.name, f"row_no, {COLUMNS}", " SET batch_id = 1")
            self._load(connection, keyed, TABLES.clean.name, f"row_no, row_key, {COLUMNS}", " SET batch_id = 1")
        return len(self._rows)

    def dosel_ingest(self) -> int:
        """Call the function of the DAG's task, starting from parsed JSON."""
        self._pipeline.ingest(OneByOne([lambda: self._rows]))
        return len(self._rows)

    def pandas_read(self) -> int:
        with connect(self._url).begin() as connection:
            return len(pd.read_sql(f"SELECT batch_id, row_key, {COLUMNS} FROM {TABLES.clean.name}", connection))

    def dosel_read(self) -> int:
        """Read the rows as training does."""
        return len(self._pipeline.batches.clean())

    @staticmethod
    def _load(connection: Any, lines: Iterable[str], table: str, columns: str, rest: str = "") -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
            file.write("\n".join(lines))
            file.flush()
            connection.exec_driver_sql(f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE {table} ({columns}){rest}")


def timed(prepare: Callable[[], None] | None, way: Callable[[], int]) -> float:
    """Rows per second of one run."""
    if prepare is not None:
        prepare()
    start = time.perf_counter()
    rows = way()
    return rows / (time.perf_counter() - start)


def measure(bench: Bench, rounds: int) -> dict[str, Alternative]:
    """Run every way once in each round, so that other load affects all of them."""
    ways: dict[str, tuple[str, Callable[[], None] | None, Callable[[], int]]] = {
        "row": ("row by row, one bare table", bench.bare, bench.row_by_row),
        "sqlalchemy": ("SQLAlchemy executemany, one bare table", bench.bare, bench.sqlalchemy_many),
        "pymysql": ("PyMySQL executemany, one bare table", bench.bare, bench.pymysql_many),
        "load": ("LOAD DATA LOCAL INFILE, one bare table", bench.bare, bench.load_data),
        "same": ("LOAD DATA LOCAL INFILE, raw + clean + ledger, unchecked", bench.ours, bench.load_data_same_writes),
        "dosel": ("**dosel**: checks, raw, clean, quarantine, ledger, audit", bench.ours, bench.dosel_ingest),
        "pandas": ("reading: pandas over PyMySQL", None, bench.pandas_read),
        "read": ("reading: **dosel**, for training", None, bench.dosel_read),
    }
    rates: dict[str, list[float]] = {key: [] for key in ways}
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for key, (_, prepare, way) in ways.items():
            rates[key].append(timed(prepare, way))
    return {key: Alternative(ways[key][0], statistics.median(rates[key])) for key in ways}


def ingest_all(url: str, files: list[Path]) -> tuple[float, float]:
    """Parse and store ten answers of the data API; return peak memory in MB, and seconds."""
    source = OneByOne([lambda f=f: json.loads(f.read_bytes())["data"] for f in files])  # type: ignore[misc]
    pipeline = Pipeline(COVERTYPE, Settings(warehouse_url=url))
    start = time.perf_counter()
    pipeline.ingest(source)
    return peak_mb(), time.perf_counter() - start


def read_all(url: str) -> tuple[float, float]:
    """Read all rows as training does; return peak memory in MB, and seconds."""
    batches = Pipeline(COVERTYPE, Settings(warehouse_url=url)).batches
    start = time.perf_counter()
    batches.clean()
    return peak_mb(), time.perf_counter() - start


def written(rows: Rows, folder: Path) -> list[Path]:
    """Write the rows to files as ten answers of the data API."""
    size = -(-len(rows) // BATCHES_OF_ALL)
    files = []
    for i in range(BATCHES_OF_ALL):
        file = folder / f"{i}.json"
        file.write_text(json.dumps({"data": rows[i * size : (i + 1) * size]}))
        files.append(file)
    return files


def counts(engine: Engine) -> dict[str, int]:
    tables = {"raw": TABLES.raw, "clean": TABLES.clean, "quarantine": TABLES.quarantine, "ledger": BATCHES}
    with engine.begin() as connection:
        found = {n: int(connection.scalar(text(f"SELECT COUNT(*) FROM {t.name}")) or 0) for n, t in tables.items()}
        found["duplicates"] = int(connection.scalar(text("SELECT SUM(rows_duplicate) FROM batches")) or 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=116_000)
    parser.add_argument("--total", type=int, default=581_012)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with local_server(MariaDB) as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(server, as_words(generate(asked.rows, seed=0), first_class=1))
        ways = measure(bench, asked.rounds)
        files = written(as_words(generate(asked.total, seed=0), first_class=1), Path(folder))
        bench.ours()
        ingest = in_a_process(ingest_all, server.url(), files)
        read = in_a_process(read_all, server.url())
        held = counts(connect(server.url()))
    report(asked, ways, held, ingest, read)


def report(
    asked: argparse.Namespace,
    ways: dict[str, Alternative],
    held: dict[str, int],
    ingest: tuple[float, float],
    read: tuple[float, float],
) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"\n| {asked.rows:,} rows, MariaDB | rows/s | of LOAD DATA, same writes |\n|---|--:|--:|")
    base = ways["same"].rate
    for key, way in ways.items():
        share = "" if key in ("pandas", "read") else f"{way.rate / base:.2f}"
        console.print(f"| {way.name} | {way.rate:,.0f} | {share} |")
    console.print(f"\n| {asked.total:,} rows in {BATCHES_OF_ALL} batches | peak memory | seconds |\n|---|--:|--:|")
    console.print(f"| ingest | {ingest[0]:.0f} MB | {ingest[1]:.1f} |")
    console.print(f"| reading for training | {read[0]:.0f} MB | {read[1]:.1f} |")
    console.print("\nrows then: " + ", ".join(f"{name} {count:,}" for name, count in held.items()))
    result = {
        "rows_per_s": round(ways["dosel"].rate),
        "vs_load_data": round(ways["dosel"].rate / base, 3),
        "read_rows_per_s": round(ways["read"].rate),
        "ingest_peak_rss_mb": round(ingest[0]),
        "read_peak_rss_mb": round(read[0]),
        **held,
    }
    console.print(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
