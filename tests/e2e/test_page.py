"""The page in a real browser with a real API: predictions, refusals and an unreachable API.

Screenshots are kept in `test-output/`; look at them after a change to the page.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dosel.client import EXPLANATION_SECONDS
from dosel.embedded.preflight import free_ports
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from scripts import screenshots
from tests.e2e.browsing import api, field_of, fill_in_and_send, keep, opened, page_of, predict, streamlit, wait_until
from tests.e2e.conftest import Installation
from tests.e2e.relay import relay
from tests.integration.worlds import Deliveries, batch

pytestmark = pytest.mark.e2e


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
        explained = page.get_by_text(f"{COVERTYPE.model_name} version 1, which gave the answer")
        expect(explained).to_be_visible(timeout=EXPLANATION_SECONDS * 1000)
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
        screenshots.settle(page)
        field.fill(f"{value:g}")
        predict(page)
        message = page.get_by_text(f"expected {NUMBER.describe_expected()}, got {value:g}")
        expect(message).to_be_visible()
        expect(page.get_by_text("No prediction")).to_be_visible()
        keep(page, "page-out-of-bounds")
        # The example replaces the invalid value.
        page.get_by_role("button", name="Fill in a real example").click()
        expect(field).to_have_value(f"{NUMBER.example:g}")
        screenshots.settle(page)
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


@pytest.mark.soak
def test_the_page_shows_why_an_api_has_no_model(browser: Browser, without_model: str) -> None:
    with opened(browser, without_model) as page:
        expect(page.get_by_text("The prediction API cannot answer this now.")).to_be_visible()
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        keep(page, "page-not-ready")


@pytest.mark.soak
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
        screenshots.settle(page)
        toggle, files = page.get_by_role("switch", name="Show lineage"), page.get_by_text("Files (SHA-256)")

        def lineage_is_shown() -> bool:
            if not toggle.is_checked():
                # On a busy machine, the page may still draw the section, and a click is lost.
                page.get_by_text("Show lineage").click()
            return files.is_visible()

        wait_until(lineage_is_shown)
        expect(page.get_by_role("button", name="The whole ledger as CSV")).to_be_visible()
        keep(page, "page-history")
