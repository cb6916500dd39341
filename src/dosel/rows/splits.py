"""Versions of the split into training rows and holdout, as texts. Hashing the rows is `dosel.rows.hashing`."""

import hashlib
from dataclasses import replace

from dosel.usecases import Split, UseCase

HASH_VERSION = "h1"
"""Changes if, and only if, the hash of any row changes."""


def split_version(use_case: UseCase) -> str:
    """The version of the split: equal versions put every row on the same side."""
    split = use_case.split
    features = hashlib.sha256("|".join(use_case.feature_names).encode()).hexdigest()[:8]
    return f"{HASH_VERSION}-{split.salt}-{split.test_share:g}-{features}"


def split_of(use_case: UseCase, version: str | None) -> Split | None:
    """The split of that version; None if the declaration, as it is now, has no such split."""
    _, _, text = (version or "").partition("-")
    salt, *others = text.rsplit("-", 2)
    try:
        split = Split(salt, float(others[0]))
    except (IndexError, ValueError):
        return None
    return split if split_version(replace(use_case, split=split)) == version else None
