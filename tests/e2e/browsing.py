"""What the tests of the page share: servers, and steps in the browser."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Locator, Page, expect

from dosel.embedded.preflight import free_ports
from dosel.usecases import Number
from dosel.usecases.covertype import COVERTYPE
from scripts import screenshots
from tests.e2e.conftest import ROOT

OUTPUT = ROOT / "test-output"
START_SECONDS = 60
LOOK_MS = 30_000
"""The time in which an element must appear, on a machine that runs the whole platform, too."""

expect.set_options(timeout=LOOK_MS)


@contextmanager
def served(command: list[str], health: str, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process until the end of the block, and wait until `health` answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(health))
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < httpx.codes.INTERNAL_SERVER_ERROR
    except httpx.TransportError:
        return False


def api(port: int, environment: dict[str, str]) -> Any:
    command = ["app.server", "app.main:create_app", "--host", "127.0.0.1", "--port", str(port)]
    return served(command, f"http://127.0.0.1:{port}/healthz", environment)


@contextmanager
def page_of(browser: Browser, api_url: str, user_home: Path) -> Iterator[Page]:
    """Serve the page of an API with a new Streamlit, and open it in the browser."""
    with streamlit(api_url, user_home) as url, opened(browser, url) as page:
        yield page


@contextmanager
def streamlit(api_url: str, user_home: Path) -> Iterator[str]:
    """The address of a Streamlit that serves the page of an API."""
    [port] = free_ports(1)
    command = ["streamlit", "run", "streamlit_app.py", "--server.address", "127.0.0.1", "--server.port", str(port)]
    environment = os.environ | {"DOSEL_API_URL": api_url, "HOME": str(user_home)}
    with served(command, f"http://127.0.0.1:{port}/_stcore/health", environment):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280, height: int = 1500, **look: Any) -> Iterator[Page]:
    """Open a page in a new session of the browser."""
    page = browser.new_page(viewport={"width": width, "height": height}, **look)
    try:
        page.goto(url)
        yield page
        # Streamlit shows an exception in the page, beside the other elements.
        expect(page.get_by_test_id("stException")).to_have_count(0)
    finally:
        page.close()


def keep(page: Page, name: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png")


def field_of(page: Page, number: Number) -> Locator:
    return page.get_by_role("spinbutton", name=number.title)


def fill_in_and_send(page: Page) -> None:
    page.get_by_role("button", name="Fill in a real example").click()
    expect(field_of(page, COVERTYPE.numbers[0])).to_have_value(f"{COVERTYPE.numbers[0].example:g}")
    # The fields are filled one after the other, and a click before the last one would send it empty.
    last = COVERTYPE.categories[-1]
    title = next(choice.title for choice in last.choices if choice.value == last.example)
    expect(page.get_by_role("combobox", name=last.title)).to_have_value(title)
    screenshots.settle(page)
    predict(page)


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict", exact=True).click()


def view(page: Page, name: str) -> None:
    """Open another view by the navigation."""
    page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
    expect(page).to_have_title(re.compile(name))
    screenshots.settle(page)


def answered(page: Page) -> Locator:
    return page.get_by_text(f"by {COVERTYPE.model_name} version 1").first
