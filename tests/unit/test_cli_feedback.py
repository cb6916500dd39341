"""`dosel feedback`, with a stand-in for the transport of HTTP."""

from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dosel.cli import cli
from dosel.client import Client

MINE, SCORERS = "a-key-of-my-own-16", "the-pages-key-16-c"


@pytest.mark.parametrize(
    ("arguments", "own", "sent"),
    [((), MINE, MINE), ((), "", SCORERS), (("--key", "given"), MINE, "given")],
    ids=["DOSEL_API_KEY", "the first scorer's", "--key"],
)
def test_feedback_sends_the_own_key_before_that_of_a_scorer(
    arguments: tuple[str, ...], own: str, sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("X-API-Key"))
        return httpx.Response(200, json={"accepted": 1})

    monkeypatch.setattr("dosel.client.Client", partial(Client, transport=httpx.MockTransport(answer)))
    monkeypatch.setenv("DOSEL_KEYS", f"page:scorer:{SCORERS}")
    monkeypatch.setenv("DOSEL_API_KEY", own)
    file = tmp_path / "truths.csv"
    file.write_text("request_id,row,truth\nr-1,1,2\n")
    result = CliRunner().invoke(cli, ["feedback", str(file), *arguments])
    assert result.exit_code == 0, result.output
    assert "1 row: 1 accepted" in result.output
    assert keys == [sent]
