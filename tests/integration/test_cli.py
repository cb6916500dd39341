"""`dosel pull`, `batches` and `quarantine` on the command line."""

import json
import socket
from collections.abc import Callable
from threading import Event

import pytest
from typer.testing import CliRunner

from dosel.cli import cli, output
from dosel.db.engine import connect
from dosel.errors import AccountingError
from dosel.usecases.covertype import COVERTYPE
from tests.outside import server

Received = Callable[..., list[list[str]]]
BAD = ["[bold]many", *["x"] * 12]


@pytest.fixture
def dosel(bare_environment: None, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("DOSEL_WAREHOUSE_URL", warehouse_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


@pytest.mark.storage
def test_pull_prints_stores_and_audits_the_batches(
    dosel: Callable[..., str], warehouse_url: str, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = iter([[*received(40), BAD, *received(3)], received(20, seed=1), []])
    numbers = iter((1, 2, 3))

    def talk(peer: socket.socket, done: Event) -> None:
        body = json.dumps({"group_number": 6, "batch_number": next(numbers), "data": next(batches)}).encode()
        peer.sendall(b"HTTP/1.1 200 OK\r\nX-Epoch: e7\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with server(talk) as (url, _):
        monkeypatch.setenv("DOSEL_DATA_API_URL", url)
        pulled = dosel("pull", COVERTYPE.name)
        assert "batch 1 of group 6: 44 rows received, 40 clean, 1 refused, 3 duplicate" in pulled
        assert "2 new batches, 60 rows kept" in pulled

        first, second = map(json.loads, dosel("batches", COVERTYPE.name, "--json").splitlines())
        assert (first["stream"], first["number"], first["epoch"]) == ("group 6", 1, "e7")
        assert (second["stream"], second["number"], second["epoch"]) == ("group 6", 2, "e7")
        counts = ("rows_received", "rows_clean", "rows_refused", "rows_duplicate")
        assert [first[name] for name in counts] == [44, 40, 1, 3]
        assert first["source"] == f"{url}/data"
        with monkeypatch.context() as terminal:
            terminal.setattr(output, "is_terminal", lambda: True)
            ledger = dosel("batches", COVERTYPE.name).splitlines()
        assert [line.split()[:5] for line in ledger[1:3]] == [
            ["1", "group", "6", "#1", "e7"],
            ["2", "group", "6", "#2", "e7"],
        ]
        assert ledger[1].split()[7:] == [first["digest"][:8], "44", "40", "1", "(2.3%)", "3", "(6.8%)"]
        assert f"from {url}/data" in ledger[3]

    shown = dosel("quarantine", COVERTYPE.name)
    assert 'Elevation: expected a whole number from 1800 to 4000 m, got "[bold]many"' in shown
    assert "1 of 1 refused rows" in shown
    assert "0 of 0 refused rows" in dosel("quarantine", COVERTYPE.name, "--batch", "2")

    with connect(warehouse_url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM covertype_clean WHERE batch_id = 2 AND row_no = 0")
    with pytest.raises(AccountingError, match="in the tables raw 20, clean 19, quarantine 0"):
        dosel("batches", COVERTYPE.name)
