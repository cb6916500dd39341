"""The page in a real browser with a real API: predictions, refusals and an unreachable API.

Screenshots are kept in `test-output/`; look at them after a change to the page.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dosel.embedded.preflight import free_ports
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases import Number
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from scripts import screenshots
from tests.e2e.conftest import ROOT, Installation
from tests.e2e.relay import relay
from tests.integration.worlds import Deliveries, batch

pytestmark = pytest.mark.e2e

OUTPUT = ROOT / "test-output"
START_SECONDS = 60
LOOK_MS = 30_000
"""The time in which an element must appear, on a machine that runs the whole platform, too."""

expect.set_options(timeout=LOOK_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if screenshots.CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with screenshots.browser() as launched:
        yield launched


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


@pytest.mark.parametrize("width", [390, 1600])
def test_a_row_sent_with_the_form_gets_a_prediction_and_an_explanation(
    browser: Browser, running: tuple[Installation, str], width: int
) -> None:
    platform, _ = running
    height = 4400 if width == 390 else 2400
    with opened(browser, platform.url("STREAMLIT_PORT"), width, height) as page:
        expect(page.get_by_role("heading", name=COVERTYPE.title)).to_be_visible()
        expect(page.get_by_text("In Production", exact=True)).to_be_visible()
        expect(page.get_by_text("version 1", exact=True).first).to_be_visible()
        expect(page.get_by_text("since", exact=False).first).to_be_visible()
        keep(page, f"page-{width}-empty")
        fill_in_and_send(page)
        expect(page.get_by_text(f"by {COVERTYPE.model_name} version 1").first).to_be_visible()
        # The explanation: the version, the contributions, the picture and the neighbours.
        expect(page.get_by_text(f"{COVERTYPE.model_name} version 1, which gave the answer")).to_be_visible()
        expect(page.locator("[data-testid='stVegaLiteChart']").nth(2)).to_be_visible()
        expect(page.get_by_text("over training rows is")).to_be_visible()
        expect(page.get_by_text("The cross is the row")).to_be_visible()
        expect(page.get_by_text("nearest training rows")).to_be_visible()
        # No element is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        keep(page, f"page-{width}-answer")


def test_the_form_has_every_field_with_its_help_and_no_presets(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        for number in COVERTYPE.numbers:
            field = field_of(page, number)
            expect(field).to_be_visible()
            expect(field).to_have_value("")
            expect(field).to_have_attribute("placeholder", f"{number.minimum:g} to {number.maximum:g}")
        category = COVERTYPE.categories[0]
        page.get_by_role("combobox", name=category.title).click()
        for choice in category.choices:
            expect(page.get_by_role("option", name=choice.title)).to_be_visible()


def test_each_empty_field_is_marked(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        predict(page)
        expect(page.get_by_text("No prediction")).to_be_visible()
        expect(page.get_by_text(", got nothing")).to_have_count(len(COVERTYPE.features))
        keep(page, "page-still-empty")


def test_views_use_cases_and_reloads_keep_the_form_and_the_answer(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    number = COVERTYPE.numbers[0]
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:

        def everything_is_there() -> None:
            expect(page.get_by_role("heading", name=COVERTYPE.title)).to_be_visible()
            expect(field_of(page, number)).to_have_value(f"{number.example:g}")
            expect(answered(page)).to_be_visible()
            expect(page.get_by_text("which gave the answer")).to_be_visible()

        fill_in_and_send(page)
        everything_is_there()
        view(page, "History")
        page.get_by_text("promoted by the gate").first.click()
        view(page, "Predict")
        everything_is_there()
        # A second click on what is selected already.
        page.get_by_role("radio", name=COVERTYPE.name).click()
        view(page, "Predict")
        everything_is_there()
        page.get_by_role("radio", name=PENGUINS.name).click()
        expect(page.get_by_role("heading", name=PENGUINS.title)).to_be_visible()
        view(page, "Models")
        assert page.url.endswith(f"/models?use_case={PENGUINS.name}")
        page.reload()
        expect(page.get_by_role("heading", name=PENGUINS.title)).to_be_visible()
        expect(page.get_by_role("heading", name="Versions")).to_be_visible()


def test_going_back_and_reloading_keep_the_form_and_the_answer(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    number = COVERTYPE.numbers[0]
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        fill_in_and_send(page)
        expect(answered(page)).to_be_visible()
        view(page, "Health")
        page.go_back()
        expect(answered(page)).to_be_visible()
        expect(field_of(page, number)).to_have_value(f"{number.example:g}")
        page.reload()
        expect(answered(page)).to_be_visible()
        expect(field_of(page, number)).to_have_value(f"{number.example:g}")


def test_a_changed_field_greys_the_answer_until_the_next_one(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    number = COVERTYPE.numbers[0]
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        fill_in_and_send(page)
        expect(page.get_by_text("which gave the answer")).to_be_visible()
        field_of(page, number).fill(f"{number.example + 100:g}")
        field_of(page, number).press("Tab")
        expect(page.get_by_text("The form has changed since.")).to_be_visible()
        expect(page.locator(".st-key-old-answer")).to_have_css("opacity", "0.4")
        keep(page, "page-old-answer")
        predict(page)
        expect(page.get_by_text("The form has changed since.")).to_have_count(0)
        expect(answered(page)).to_be_visible()


def test_the_answer_is_on_the_screen_of_a_phone(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT"), 390, 844) as page:
        fill_in_and_send(page)
        expect(answered(page)).to_be_in_viewport()
        keep(page, "page-phone-answer")


@pytest.mark.parametrize(("scheme", "background"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(17, 23, 18)")])
def test_light_and_dark_follow_the_browser(
    browser: Browser, running: tuple[Installation, str], scheme: str, background: str
) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT"), color_scheme=scheme) as page:
        expect(page.get_by_test_id("stApp")).to_have_css("background-color", background)


def test_links_lead_to_the_run_the_dag_and_the_call(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        found = {
            name: page.get_by_role("link", name=name).get_attribute("href") or ""
            for name in ("Its run in MLflow", "Trainings in Airflow", "Predictions over HTTP")
        }
        assert re.search(r"/#/runs/[0-9a-f]{32}\?workflowType=machine_learning$", found["Its run in MLflow"])
        assert found["Trainings in Airflow"].endswith(f"/dags/{COVERTYPE.name}_train")
        page.goto(found["Predictions over HTTP"])
        expect(page.locator(f"#operations-predict-predict_{COVERTYPE.name}")).to_have_class(re.compile("is-open"))


MODEL, CASE = f"/models/{COVERTYPE.model_name}", f"/use-cases/{COVERTYPE.name}"

CALLS = {
    "Many rows": set[str](),
    "Models": {"GET /models"},
    "Health": {f"GET {CASE}/health"},
    "Challenger": {f"GET {CASE}/shadow"},
    "Data": {f"GET {CASE}/batches"},
    "History": {f"GET {MODEL}/history", f"GET {MODEL}/approvals", "GET /events"},
}
"""What each view asks the API, beside the use cases."""


def test_each_view_asks_the_api_once_for_what_it_shows(
    browser: Browser, running: tuple[Installation, str], tmp_path: Path
) -> None:
    platform, _ = running
    [port] = free_ports(1)
    with (
        relay(port, int(platform.environment["API_PORT"])) as requests,
        page_of(browser, f"http://127.0.0.1:{port}", tmp_path) as page,
    ):
        fill_in_and_send(page)
        expect(page.get_by_text("which gave the answer")).to_be_visible()
        screenshots.settle(page)
        assert sorted(set(requests)) == [
            "GET /model-info",
            "GET /use-cases",
            f"POST /explain/{COVERTYPE.name}",
            f"POST /predict/{COVERTYPE.name}",
        ]
        for name, calls in CALLS.items():
            requests.clear()
            view(page, name)
            # The quarantine is asked for if there are refused rows.
            asked = set(requests) - {"GET /use-cases", f"GET {CASE}/quarantine"}
            assert (name, asked) == (name, calls)
            assert len(requests) == len(set(requests))
        requests.clear()
        view(page, "Predict")
        expect(answered(page)).to_be_visible()
        assert not [request for request in requests if request.startswith("POST")]


NUMBER = COVERTYPE.numbers[2]


NUMBER = COVERTYPE.numbers[2]


@pytest.mark.parametrize("value", [NUMBER.maximum + 1, NUMBER.minimum + 0.5], ids=["out of bounds", "not whole"])
def test_a_refused_value_is_marked_with_the_apis_message(
    browser: Browser, running: tuple[Installation, str], value: float
) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        page.get_by_role("button", name="Fill in a real example").click()
        field = field_of(page, NUMBER)
        expect(field).to_have_value(f"{NUMBER.example:g}")
        field.fill(f"{value:g}")
        predict(page)
        message = page.get_by_text(f"expected {NUMBER.describe_expected()}, got {value:g}")
        expect(message).to_be_visible()
        expect(page.get_by_text("No prediction")).to_be_visible()
        keep(page, "page-out-of-bounds")
        # The example replaces the invalid value.
        page.get_by_role("button", name="Fill in a real example").click()
        expect(field).to_have_value(f"{NUMBER.example:g}")
        predict(page)
        expect(message).to_have_count(0)
        expect(page.get_by_text(f"by {COVERTYPE.model_name} version 1").first).to_be_visible()


def test_the_page_shows_an_unreachable_api_and_recovers(
    browser: Browser, running: tuple[Installation, str], tmp_path: Path
) -> None:
    platform, _ = running
    [port] = free_ports(1)
    api_port = int(platform.environment["API_PORT"])
    with page_of(browser, f"http://127.0.0.1:{port}", tmp_path) as page:
        expect(page.get_by_text("The prediction API cannot be reached.")).to_be_visible()
        keep(page, "page-api-down")
        with relay(port, api_port):
            page.get_by_role("button", name="Try again").click()
            fill_in_and_send(page)
            expect(page.get_by_text(f"by {COVERTYPE.model_name} version 1").first).to_be_visible()
        predict(page)
        expect(page.get_by_text("The prediction API cannot be reached.")).to_have_count(1)
        expect(page.get_by_text(f"by {COVERTYPE.model_name}")).to_have_count(0)
        expect(page.get_by_test_id("stException")).to_have_count(0)
        keep(page, "page-api-stopped")
        with relay(port, api_port):
            page.get_by_role("button", name="Try again").click()
            # The typed values are kept.
            expect(field_of(page, COVERTYPE.numbers[0])).to_have_value(f"{COVERTYPE.numbers[0].example:g}")


@pytest.fixture(scope="module")
def without_model(
    received: Callable[..., list[list[str]]], empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a page whose API has no model, and has one batch of 42 rows, one of them refused."""
    folder, rows = tmp_path_factory.mktemp("without_model"), received(40)
    home, uri = folder / "dosel", f"sqlite:///{shutil.copy(empty_mlflow, folder / 'mlflow.db')}"
    refused = ["steep", *rows[1][1:]]
    Pipeline(COVERTYPE, Settings(home=home, tracking_uri=uri)).ingest(Deliveries(batch([*rows, rows[0], refused])))
    environment = os.environ | {"DOSEL_HOME": str(home), "MLFLOW_TRACKING_URI": uri}
    [port] = free_ports(1)
    with api(port, environment), streamlit(f"http://127.0.0.1:{port}", folder) as url:
        yield url


def test_the_page_shows_why_an_api_has_no_model(browser: Browser, without_model: str) -> None:
    with opened(browser, without_model) as page:
        expect(page.get_by_text("Not ready yet.")).to_be_visible()
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        keep(page, "page-not-ready")


def test_the_page_shows_batches_and_quarantine(browser: Browser, without_model: str) -> None:
    with opened(browser, f"{without_model}/data", height=2200) as page:
        for title, count in {"Batches": 1, "Rows received": 42, "Clean": 40, "Refused": 1, "Duplicates": 1}.items():
            metric = page.get_by_test_id("stMetric").filter(has=page.get_by_text(title, exact=True))
            expect(metric.get_by_test_id("stMetricValue")).to_have_text(str(count))
        expect(page.get_by_text("The newest 1 of 1 refused rows, as received.")).to_be_visible()
        # The cells are drawn on a canvas; the texts for screen readers are beside it.
        reason = page.locator("[role=gridcell]", has_text=f"{COVERTYPE.features[0].name}:")
        expect(reason).to_contain_text('got "steep"')
        keep(page, "page-incoming")


def test_the_history_shows_the_gates_table_and_the_lineage(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, f"{platform.url('STREAMLIT_PORT')}/history", height=2000) as page:
        page.get_by_text("promoted by the gate").first.click()
        for rule in ("floor", "interval", "class recall"):
            expect(page.get_by_role("cell", name=rule, exact=True)).to_be_visible()
        page.get_by_text("Show lineage").click()
        expect(page.get_by_text("Files (SHA-256)")).to_be_visible()
        expect(page.get_by_role("button", name="The whole ledger as CSV")).to_be_visible()
        keep(page, "page-history")
