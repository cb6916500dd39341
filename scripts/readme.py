"""Writes the parts of README.md and docs/ that follow from the code: the tables of services, use cases,
settings and credentials, and the example call.

python scripts/readme.py            brings them up to date
python scripts/readme.py --check    fails if they are not
"""

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))


def parts() -> dict[str, str]:
    """The text of each generated part, by the name in its markers."""
    # The data API is a program of its own beside the package; this script is started from anywhere.
    sys.path.insert(0, str(ROOT))
    from dosel.credentials import CREDENTIALS
    from dosel.settings import Settings
    from dosel.usecases import DEFAULT
    from external.settings import Settings as DataApiSettings

    body = textwrap.fill(json.dumps(DEFAULT.example), 100, initial_indent="    ", subsequent_indent="     ").strip()
    call = f"curl -s localhost:8989/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return {
        "services": services_table(),
        "use-cases": use_cases_table(),
        "settings": table(Settings),
        "data-api-settings": table(DataApiSettings),
        "credentials": "\n".join(
            ["| variable | opens |", "|---|---|", *(f"| `{c.name}` | {c.opens} |" for c in CREDENTIALS)]
        ),
        "example": f"```console\n$ {call}\n```",
    }


def services_table() -> str:
    from dosel.embedded.services import services
    from dosel.settings import Settings

    shows = {
        "page": ("", "what is in Production, a form to ask it, the answer"),
        "api": ("/docs", "every call, with each field's unit, bounds and an example to try"),
        "mlflow": ("", "an experiment for each use case: its searches with their candidates; its model's versions"),
        "airflow-api-server": (
            "",
            "two DAGs for each use case, `…_ingest` and `…_train`; the user is in `.env`, the password too",
        ),
        "data-api": ("/docs", "the outside source of the batches"),
    }
    defaults = {field.validation_alias: field.default for field in Settings.model_fields.values()}
    found = {service.name: service for service in services(Settings())}
    lines = ["| service | address | what it shows |", "|---|---|---|"]
    for name, (path, words) in shows.items():
        service = found[name]
        # The default's port, whatever the environment of whoever runs this says.
        lines.append(f"| {service.title} | http://localhost:{defaults[service.port_setting]}{path} | {words} |")
    return "\n".join(lines)


def use_cases_table() -> str:
    from dosel.usecases import ALL

    lines = ["| use case | what it tells | families that are searched | model in MLflow |", "|---|---|---|---|"]
    for use_case in ALL:
        families = ", ".join(family.name for family in use_case.families)
        lines.append(f"| `{use_case.name}` | {use_case.summary} | {families} | `{use_case.model_name}` |")
    return "\n".join(lines)


def table(settings: type[BaseSettings]) -> str:
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows(settings)])


def rows(settings: type[BaseSettings]) -> Iterable[str]:
    for name, field in settings.model_fields.items():
        variable = field.validation_alias or name.upper()
        shown = "" if field.default in (None, "", PydanticUndefined) else f"`{field.default}`"
        yield f"| `{variable}` | {shown} | {field.description} |"


def rewritten(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages with every generated part as it should be, wherever it stands."""
    found = dict(pages)
    for name, part in parts().items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not any(marked.search(text) for text in pages.values()):
            raise SystemExit(f"no page has a part between <!-- {name} --> and <!-- /{name} -->")
        for page, text in found.items():
            found[page] = marked.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
    return found


def main() -> None:
    pages = {page: page.read_text() for page in PAGES}
    changed = {page: text for page, text in rewritten(pages).items() if text != pages[page]}
    if "--check" in sys.argv[1:] and changed:
        names = ", ".join(str(page.relative_to(ROOT)) for page in changed)
        raise SystemExit(f"{names}: not what the code says; `make docs` brings it up to date")
    for page, text in changed.items():
        page.write_text(text)


if __name__ == "__main__":
    main()
