"""Rows that workers read from the lake are those of the driver, bit by bit, or an error says why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dosel.errors import SourceError
from dosel.quality import check
from dosel.rows import frames
from dosel.settings import Settings
from dosel.sources.lake import TRAINING_ROWS, FolderLake, open_lake
from dosel.training.stored_rows import store
from dosel.usecases.covertype import COVERTYPE


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_rows_come_back_in_their_order_and_types(settings: Settings, received: Callable[..., list[list[str]]]) -> None:
    table = check(COVERTYPE, received(50), "uci").accepted
    # As in a training, whose rows are a part of a larger table.
    features = frames.canonical(COVERTYPE, table)[::2]
    features.iloc[3, 0] = np.nan
    classes = table["Cover_Type"].to_numpy(dtype=np.int64)[::2]
    stored = store(open_lake(settings), COVERTYPE.name, features, classes)
    found, found_classes = stored.load(settings)
    pd.testing.assert_frame_equal(found, features.reset_index(drop=True))
    np.testing.assert_array_equal(found_classes, classes)
    assert found_classes.dtype == classes.dtype


def test_equal_rows_are_written_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    features, classes = pd.DataFrame({"a": [1.0, 2.0]}), np.array([1, 2])
    first = store(open_lake(settings), "some", features, classes)
    monkeypatch.setattr(FolderLake, "put", lambda *_: pytest.fail("written twice"))
    assert store(open_lake(settings), "some", features, classes) == first


@pytest.mark.parametrize(("content", "why"), [(None, "does not exist"), (b"other", "was changed")])
def test_missing_or_changed_rows_are_refused(content: bytes | None, why: str, settings: Settings) -> None:
    lake = open_lake(settings)
    stored = store(lake, "some", pd.DataFrame({"a": [1.0, 2.0]}), np.array([1, 2]))
    if content is None:
        Path(lake.address(TRAINING_ROWS, stored.key)).unlink()
    else:
        lake.put(TRAINING_ROWS, stored.key, content)
    with pytest.raises(SourceError, match=why):
        stored.load(settings)
