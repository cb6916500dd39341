"""The file of docs/add-a-use-case.md is a complete use case without any other change."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "add-a-use-case.md"


def test_the_file_of_the_guide_works_as_a_use_case(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [place] = re.findall(r"Copy it to `(src/dosel/usecases/(?:\w+)\.py)`", text)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    assert not (tmp_path / place).exists()
    (tmp_path / place).write_text(code)
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOSEL_", "MLFLOW_", "AIRFLOW"))}
    environment = kept | {"PYTHONPATH": f"{tmp_path / 'src'}:{ROOT}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "tests.integration.guide", Path(place).stem, str(home)]
    result = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.splitlines()[-1] == "all of it works"
