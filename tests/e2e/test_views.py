"""The views of the page in a real browser: what they keep, what they show, and what they ask the API for.

Screenshots are kept in `test-output/`; `make screenshots` takes those of every view.
"""

import csv
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dosel.client import Client
from dosel.embedded.preflight import free_ports
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from scripts import screenshots
from tests.e2e.browsing import answered, field_of, fill_in_and_send, keep, opened, page_of, predict, view
from tests.e2e.conftest import Installation
from tests.e2e.relay import relay

pytestmark = pytest.mark.e2e


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
        expect(page.get_by_role("heading", name="Versions", exact=True)).to_be_visible()


def test_the_first_view_has_a_name_and_an_unknown_use_case_is_named(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    address = f"{platform.url('STREAMLIT_PORT')}/predict?use_case="
    with opened(browser, f"{address}{PENGUINS.name}") as page:
        expect(page.get_by_role("heading", name=PENGUINS.title)).to_be_visible()
        expect(page.get_by_role("button", name="Fill in a real example")).to_be_visible()
        expect(page.get_by_text("Page not found")).to_have_count(0)
        page.goto(f"{address}nosuch")
        expect(page.get_by_text("There is no use case nosuch.")).to_be_visible()
        expect(page.get_by_role("heading", name=COVERTYPE.title)).to_be_visible()


@pytest.mark.soak
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


@pytest.mark.soak
def test_links_lead_to_the_run_the_dag_and_the_call(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, platform.url("STREAMLIT_PORT")) as page:
        found = {
            name: page.get_by_role("link", name=name).get_attribute("href") or ""
            for name in ("Its run in MLflow", "Trainings in Airflow", "Predictions over HTTP")
        }
        assert re.search(
            r"/#/experiments/\d+/runs/[0-9a-f]{32}\?workflowType=machine_learning$", found["Its run in MLflow"]
        )
        assert found["Trainings in Airflow"].endswith(f"/dags/{COVERTYPE.name}_train")
        page.goto(found["Its run in MLflow"])
        # What MLflow shows of a run of machine learning, and not of one of GenAI.
        expect(page.get_by_text("Model metrics", exact=True).first).to_be_visible()
        page.goto(found["Predictions over HTTP"])
        expect(page.locator(f"#operations-predict-predict_{COVERTYPE.name}")).to_have_class(re.compile("is-open"))


MODEL, CASE = f"/models/{COVERTYPE.model_name}", f"/use-cases/{COVERTYPE.name}"

CALLS = {
    "Many rows": set[str](),
    "Models": {"GET /models"},
    "Health": {f"GET {CASE}/health", "GET /events"},
    "Challenger": {f"GET {CASE}/shadow"},
    "Data": {f"GET {CASE}/batches"},
    "History": {f"GET {MODEL}/history", f"GET {MODEL}/approvals"},
}
"""What each view asks the API, beside the use cases and what a view before it has asked within five seconds."""


@pytest.mark.soak
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
            f"GET {MODEL}/history",
            "GET /use-cases",
            f"POST /explain/{COVERTYPE.name}",
            f"POST /predict/{COVERTYPE.name}",
        ]
        # The view of one row and History share a call, whose answer is kept for five seconds.
        page.wait_for_timeout(5_000)
        for name, calls in CALLS.items():
            requests.clear()
            view(page, name)
            # The quarantine is asked for if there are refused rows.
            asked = set(requests) - {"GET /use-cases", f"GET {CASE}/quarantine"}
            if "GET /events" not in calls:
                # Challenger and History show events, too, which Health has asked for.
                asked -= {"GET /events"}
            assert (name, asked) == (name, calls)
            assert len(requests) == len(set(requests))
        requests.clear()
        view(page, "Predict")
        expect(answered(page)).to_be_visible()
        assert not [request for request in requests if request.startswith("POST")]


def dropped(page: Page, platform: Installation, content: bytes) -> None:
    page.goto(f"{platform.url('STREAMLIT_PORT')}/many-rows?use_case={PENGUINS.name}")
    page.locator("input[type=file]").set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": content})
    button = page.get_by_role("button", name="Predict all rows")
    expect(button).to_be_enabled()
    button.click()


HEADER = "id;Island;culmen_length_mm;bill-depth-mm;flipper_length_mm;body_mass_g;sex\n"
"""Aliases, other separators, and a column that is not declared."""


def test_a_dropped_csv_comes_back_with_predictions_and_probabilities(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    with opened(browser, "about:blank") as page:
        rows = "".join(f"{n};Biscoe;39,1;18,7;181;3750;FEMALE\n" for n in range(300))
        dropped(page, platform, (HEADER + rows).encode("utf-16"))
        expect(page.get_by_text("300 rows answered by penguins_species")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="Rows with predictions and probabilities").click()
        names, *lines = csv.reader(Path(download.value.path()).read_text().splitlines(), delimiter=";")
        assert names[:9] == [*HEADER.strip().split(";"), "prediction", "label"]
        assert len(lines) == 300
        assert lines[299][:3] == ["299", "Biscoe", "39,1"]
        keep(page, "page-many-rows")
        view(page, "Health")
        view(page, "Many rows")
        expect(page.get_by_text("300 rows answered by penguins_species")).to_be_visible()


@pytest.mark.soak
def test_the_wrong_cells_of_a_dropped_csv_are_shown(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    with opened(browser, "about:blank") as page:
        rows = "1;Biscoe;39,1;18,7;181;3750;FEMALE\n2;Hawaii;39,1;18,7;181;9000;FEMALE\n"
        dropped(page, platform, (HEADER + rows).encode())
        expect(page.get_by_text("Nothing was predicted")).to_be_visible()
        cell = page.locator("[role=gridcell]", has_text="body_mass_g: expected a whole number from 2000 to 8000 g")
        expect(cell).to_contain_text("9000")
        keep(page, "page-many-rows-refused")


def test_two_versions_are_compared_side_by_side(browser: Browser, running: tuple[Installation, str]) -> None:
    platform, _ = running
    address = f"{platform.url('STREAMLIT_PORT')}/models?use_case={PENGUINS.name}"
    with opened(browser, address, height=3200) as page:
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_text("held-out rows that neither was trained on")).to_be_visible()
        for title in ("Both right", "Neither"):
            expect(page.get_by_text(title, exact=True)).to_be_visible()
        expect(page.get_by_text("Confusion matrix of version")).to_have_count(2)
        expect(page.get_by_text("Where they disagree")).to_be_visible()
        expect(page.get_by_role("cell", name="interval", exact=True)).to_be_visible()
        keep(page, "page-comparison")


@pytest.mark.soak
def test_what_if_draws_the_probabilities_along_the_number_that_contributed_most(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    with Client(platform.url("API_PORT")) as client:
        explanation = client.explain(PENGUINS.name, PENGUINS.example)
    strength = {part["feature"]: abs(part["contribution"]) for part in explanation["contributions"]["features"]}
    number = max(PENGUINS.numbers, key=lambda one: strength[one.name])
    with opened(browser, f"{platform.url('STREAMLIT_PORT')}/?use_case={PENGUINS.name}", height=3200) as page:
        page.get_by_role("button", name="Fill in a real example").click()
        expect(field_of(page, number)).to_have_value(re.compile(rf"{number.example:g}0*"))
        screenshots.settle(page)
        predict(page)
        expect(page.get_by_text("which gave the answer")).to_be_visible()
        page.get_by_text("What if one value were different?").click()

        def says(value: float) -> None:
            expect(page.get_by_text(re.compile(rf"With {value:g}(\.0)? {number.unit} the answer is"))).to_be_visible()

        says(number.example)
        page.get_by_role("slider").press("End")
        says(number.maximum)
        expect(page.get_by_text(f"by {PENGUINS.model_name} version").first).to_be_visible()
        keep(page, "page-what-if")


def test_a_value_unlike_the_training_rows_is_named_above_the_answer(
    browser: Browser, running: tuple[Installation, str]
) -> None:
    platform, _ = running
    mass = next(number for number in PENGUINS.numbers if number.name == "body_mass_g")
    with opened(browser, f"{platform.url('STREAMLIT_PORT')}/?use_case={PENGUINS.name}") as page:
        page.get_by_role("button", name="Fill in a real example").click()
        expect(field_of(page, mass)).to_have_value(f"{mass.example:g}")
        screenshots.settle(page)
        field_of(page, mass).fill(f"{mass.maximum:g}")
        predict(page)
        warning = page.get_by_text(f"{mass.title} {mass.maximum:g} g: training rows have")
        expect(warning).to_be_visible()
        keep(page, "page-unlike")
