"""Notices of libraries stay out of the output, whichever filters of warnings there are."""

import warnings
from typing import Any

import pytest

from dosel.notices import leave_out_notices


@pytest.mark.parametrize(
    ("text", "category", "is_shown"),
    [
        ("Hint: Inferred schema contains integer column(s).", UserWarning, False),
        ("Attribute `probA_` was deprecated in version 1.9", FutureWarning, False),
        ("`sklearn.utils.parallel.delayed` should be used with", UserWarning, False),
        ("Operation with range is deprecated.", DeprecationWarning, False),
        ("the disk is nearly full", UserWarning, True),
    ],
)
def test_notices_are_left_out(
    monkeypatch: pytest.MonkeyPatch, text: str, category: type[Warning], is_shown: bool
) -> None:
    shown = list[str]()

    def show(message: Any, *_: Any) -> None:
        shown.append(str(message))

    monkeypatch.setattr(warnings, "showwarning", show)
    monkeypatch.setattr("sys.warnoptions", [])
    for _ in range(2):
        leave_out_notices()
    # As a library in another thread leaves the filters.
    warnings.simplefilter("always")
    warnings.warn(text, category, stacklevel=1)
    assert shown == ([text] if is_shown else [])
