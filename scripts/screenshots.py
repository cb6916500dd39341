"""Pictures of every view of the running page, light, dark and as wide as a phone, and of MLflow and Airflow.

python -m scripts.screenshots               writes them to test-output/views/
python -m scripts.screenshots --readme      writes the pictures of README.md, too
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dosel.addresses import in_airflow, in_mlflow
from dosel.cli.common import load_settings
from dosel.client import Client
from dosel.embedded.services import ROOT
from dosel.settings import Settings

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Programs of Chromium; the first has no windows of its own to draw, which halves its processor time."""

CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FOLDER = ROOT / "test-output" / "views"
README_PICTURES = ROOT / "docs" / "images"
README_NAMES = ("page", "mlflow", "airflow")
COLOURS = 256
"""Colours of README.md's pictures; few keep the files small."""

LOOK_MS = 60_000
LOOKS: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "light": (1280, 900, "light"),
    "dark": (1280, 900, "dark"),
    "phone": (390, 844, "light"),
}
"""Width, height and colour scheme of each kind of picture."""


def main(arguments: Sequence[str]) -> None:
    # Here, since the tests of the page, which share the browser, need nothing of Streamlit.
    from ui.page import VIEWS

    settings = load_settings()
    with Client(settings.api_url) as client:
        names = [use_case["name"] for use_case in client.use_cases()]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with browser() as opened:
        for kind, (width, height, scheme) in LOOKS.items():
            page = opened.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            for name in names:
                # The other use cases differ from the first in the view of one row only.
                for path in VIEWS if name == names[0] else ["predict"]:
                    _open(page, settings.page_url, path, name)
                    if path == "predict":
                        ask(page)
                    _save(page, FOLDER / f"{name}-{path}-{kind}.png")
            page.close()
        page = opened.new_page(viewport={"width": 1280, "height": 960})
        _open(page, settings.page_url, "predict", names[0])
        ask(page)
        page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
        page.screenshot(path=FOLDER / "page.png")
        take_services(page, settings, names[0])
        page.close()
    if "--readme" in arguments:
        for name in README_NAMES:
            with Image.open(FOLDER / f"{name}.png") as picture:
                reduced = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
            reduced.save(README_PICTURES / f"{name}.png", optimize=True)
    sys.stdout.write(f"the pictures are in {FOLDER.relative_to(ROOT)}/\n")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium from the PATH."""
    if CHROMIUM is None:
        raise SystemExit("no Chromium on PATH (Debian: apt-get install chromium-headless-shell)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


def ask(page: Page) -> None:
    """Fill in the example and wait for the answer and its explanation."""
    page.get_by_role("button", name="Fill in a real example").click()
    # The browser sends what its fields hold, so that an earlier click would send some of them empty.
    expect(page.get_by_role("spinbutton").first).not_to_have_value("", timeout=LOOK_MS)
    settle(page)
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_text("which gave the answer")).to_be_visible(timeout=LOOK_MS)
    settle(page)


def take_services(page: Page, settings: Settings, use_case: str) -> None:
    """Take pictures of what MLflow and Airflow show of a use case that is in Production."""
    page.set_viewport_size({"width": 1280, "height": 720})
    with Client(settings.api_url) as client:
        info = client.model_info(use_case)
    version = info["production"]
    experiment = f"experiments/{version['experiment_id']}"
    places = {
        "mlflow-experiments": ("experiments", "training_experiment"),
        "mlflow-trainings": (f"{experiment}/runs", " rows · "),
        "mlflow": (f"{experiment}/runs/{version['run_id']}", "holdout_accuracy"),
        "mlflow-model": (f"models/{info['name']}", "Version"),
    }
    # MLflow's assistant opens at the first visit, over a third of the page.
    page.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    for name, (place, awaited) in places.items():
        page.goto(in_mlflow(settings, place))
        expect(page.get_by_text(awaited).first).to_be_visible(timeout=LOOK_MS)
        page.screenshot(path=FOLDER / f"{name}.png")
    page.goto(settings.airflow_url)
    page.get_by_label("Username").fill(settings.airflow_user)
    page.get_by_label("Password").fill(settings.airflow_password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Triggerer")).to_be_visible(timeout=LOOK_MS)
    page.screenshot(path=FOLDER / "airflow-home.png")
    page.goto(in_airflow(settings, f"dags/{use_case}_train"))
    expect(page.get_by_text("warm_up").first).to_be_visible(timeout=LOOK_MS)
    page.screenshot(path=FOLDER / "airflow.png")


def settle(page: Page) -> None:
    """Wait until the page has drawn everything."""
    page.wait_for_function(
        "() => { const app = document.querySelector('[data-testid=stApp]');"
        " return app && app.dataset.testScriptState === 'notRunning'; }",
        timeout=LOOK_MS,
    )
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=LOOK_MS)


def _open(page: Page, address: str, path: str, use_case: str) -> None:
    page.goto(f"{address.rstrip('/')}/{'' if path == 'predict' else path}?{urlencode({'use_case': use_case})}")
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=LOOK_MS)
    settle(page)


def _save(page: Page, file: Path) -> None:
    """Take a picture of the whole page: it scrolls within a box, so the window is as high as its content meanwhile."""
    size = page.viewport_size
    assert size is not None
    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    page.screenshot(path=file)
    page.set_viewport_size(size)


if __name__ == "__main__":
    main(sys.argv[1:])
