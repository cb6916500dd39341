"""Files that are written in one step."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dosel.files import replace_file


def test_threads_replace_one_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = [str(number) * 100_000 for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(replace_file, file), contents * 25))
    assert file.read_text() in contents
    assert list(tmp_path.iterdir()) == [file]
