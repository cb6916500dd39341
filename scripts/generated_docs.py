"""Writes the generated parts of README.md and docs/, and checks the links between the pages.

python scripts/generated_docs.py            writes the generated parts
python scripts/generated_docs.py --check    fails if a generated part is out of date or a link is broken
"""

import html
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parent.parent
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""The pages outside docs/; `mkdocs build --strict` checks the links of the others."""

FLOW = ROOT / "docs" / "images" / "flow.svg"
"""README.md's diagram, drawn: the site shows this picture, so that it works without the internet."""


def main() -> None:
    pages = {page: page.read_text() for page in (*(ROOT / name for name in TOP), *sorted(ROOT.glob("docs/*.md")))}
    changed = {page: text for page, text in rewritten(pages).items() if text != pages[page]}
    if "--check" in sys.argv[1:]:
        problems = [f"{page.relative_to(ROOT)}: a generated part is out of date; run `make docs`" for page in changed]
        for name in TOP:
            problems += broken_links(ROOT / name)
        if not drawn_from(pages[ROOT / "README.md"]):
            problems.append("docs/images/flow.svg: not the diagram of README.md; CONTRIBUTING.md says how to draw it")
        if problems:
            raise SystemExit("\n".join(problems))
    else:
        for page, text in changed.items():
            page.write_text(text)


def rewritten(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages with current generated parts."""
    new = dict(pages)
    for name, part in parts().items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not any(marked.search(text) for text in pages.values()):
            raise SystemExit(f"no page has a part between <!-- {name} --> and <!-- /{name} -->")
        for page, text in new.items():
            new[page] = marked.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
    return new


def parts() -> dict[str, str]:
    """The text of each generated part, by the name in its markers."""
    # The API and the data API are folders beside the package; this script may be started from anywhere.
    sys.path.insert(0, str(ROOT))
    from dosel.credentials import CREDENTIALS
    from dosel.settings import Settings
    from dosel.usecases import DEFAULT
    from external.settings import Settings as DataApiSettings

    if DEFAULT is None:
        raise SystemExit("no use case is the default; `dosel check` says why")
    body = textwrap.fill(json.dumps(DEFAULT.example), 100, initial_indent="    ", subsequent_indent="     ").strip()
    call = f"curl -s localhost:8989/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return {
        "services": services_table(),
        "use-cases": use_cases_table(),
        "settings": settings_table(Settings),
        "data-api-settings": settings_table(DataApiSettings),
        "credentials": table(("variable", "opens"), ((f"`{c.name}`", c.opens) for c in CREDENTIALS)),
        "api": api_table(),
        "commands": commands_table(),
        "example": f"```console\n$ {call}\n```",
    }


def services_table() -> str:
    from dosel.embedded.services import services
    from dosel.settings import Settings

    shows = {
        "page": "the version in Production, a form for one row, and the answer",
        "api": "every call, with the unit, the bounds and an example of each field",
        "mlflow": "one experiment for each use case; `make up` and the page print links to its trainings",
        "airflow-api-server": "two DAGs for each use case, `…_ingest` and `…_train`; user and password: `admin`",
        "data-api": "the outside source of the batches",
    }
    # The addresses are those of the default ports, whatever the environment of this process says.
    ports = {field.validation_alias: field.default for field in Settings.model_fields.values()}
    known = {service.name: service for service in services(Settings())}
    rows = (
        (known[name].title, f"http://localhost:{ports[known[name].port_setting]}{known[name].path}", words)
        for name, words in shows.items()
    )
    return table(("service", "address", "what it shows"), rows)


def use_cases_table() -> str:
    from dosel.usecases import ALL

    rows = (
        (f"`{u.name}`", u.summary, ", ".join(family.name for family in u.families), f"`{u.model_name}`") for u in ALL
    )
    return table(("use case", "what it predicts", "families it compares", "model in MLflow"), rows)


def settings_table(settings: type[BaseSettings]) -> str:
    rows = []
    for name, field in settings.model_fields.items():
        default = "" if field.default in (None, "", PydanticUndefined) else f"`{field.default}`"
        rows.append((f"`{field.validation_alias or name.upper()}`", default, " ".join(str(field.description).split())))
    return table(("variable", "default", "meaning"), rows)


def api_table() -> str:
    """The table of calls for all use cases; predictions and explanations have pages of their own."""
    from app.main import create_app
    from dosel.settings import Settings

    paths: dict[str, dict[str, dict[str, str]]] = create_app(Settings()).openapi()["paths"]
    rows = (
        (f"`{method.upper()} {path}`", call["summary"])
        for path, calls in paths.items()
        if not path.startswith(("/predict", "/explain"))
        for method, call in calls.items()
    )
    return table(("call", "answer"), rows)


def commands_table() -> str:
    """The table of the command line's commands, with the first sentences of their help."""
    from typer.main import get_command

    from dosel.cli import cli

    def rows(group: Any, before: str) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            text = " ".join((command.help or "").split("\n\n")[0].split())
            yield f"`{before} {name}`", text.replace("|", "\\|")
            if hasattr(command, "commands"):
                yield from rows(command, f"{before} {name}")

    return table(("command", "what it does"), rows(get_command(cli), "dosel"))


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ("---",) * len(titles), *rows)).replace("|  |", "| |")


def broken_links(page: Path) -> Iterator[str]:
    """One message for each relative link of a page whose file or heading does not exist."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            yield f"{page.name}: the link {target} leads to no file"
        elif anchor and anchor not in anchors(file.read_text()):
            yield f"{page.name}: the link {target} leads to no heading of {file.name}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings: lower-case letters, digits, and a hyphen for each blank."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def drawn_from(text: str) -> bool:
    """Whether the picture of the flow has the diagram of the text as its description."""
    [diagram] = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    [source] = re.findall(r"<desc>(.*?)</desc>", FLOW.read_text(), re.DOTALL)
    return html.unescape(str(source)).strip() == str(diagram).strip()


if __name__ == "__main__":
    main()
