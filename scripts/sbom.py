"""Writes a bill of materials (SBOM) for each image, in CycloneDX's format, to `sbom/`.

    python -m scripts.sbom

Each lists the image's base and the Python packages of its lock with their hashes: what a build installs on Linux, no
more and no less, since images are built with `--require-hashes --no-deps`. Packages inside the base
image are not listed.
"""

import json
import re
import tomllib
from typing import Any

from dotenv import dotenv_values
from packaging.requirements import Requirement

from scripts.lock import IMAGES, ROOT, entries

FOLDER = ROOT / "sbom"


def main() -> None:
    base = str(dotenv_values(ROOT / ".env")["PYTHON_IMAGE"])
    python = ".".join(re.findall(r"\d+", base)[:2])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    FOLDER.mkdir(exist_ok=True)
    for folder in IMAGES.values():
        parts = [{"type": "container", "name": base}, *components(folder, python)]
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": {"type": "container", "name": f"dosel-{folder}", "version": version}},
            "components": parts,
        }
        file = FOLDER / f"{folder}.cdx.json"
        file.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{file.relative_to(ROOT)}: {len(parts)} components")


def components(folder: str, python: str) -> list[dict[str, Any]]:
    """The packages of an image's lock, for the Python of the image."""
    system = {
        **{"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"},
        **{"platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"},
        "platform_python_implementation": "CPython",
    }
    found = []
    for text in entries(f"{folder}/requirements.txt").values():
        for pin in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
            if not pin:
                continue
            requirement = Requirement(pin.partition(" \\\n")[0])
            if requirement.marker and not requirement.marker.evaluate(system):
                continue
            name, version = requirement.name, str(requirement.specifier).removeprefix("==")
            found.append(
                {
                    "type": "library",
                    "name": name,
                    "version": version,
                    "purl": f"pkg:pypi/{name}@{version}",
                    "hashes": [{"alg": "SHA-256", "content": content} for content in re.findall("sha256:(\\w+)", pin)],
                }
            )
    return found


if __name__ == "__main__":
    main()
