"""Digests of everything that decides a training's result. They need no library of a training."""

import hashlib
from typing import Any

import dosel
from dosel.model.fingerprint import declaration
from dosel.rows import splits
from dosel.usecases import Family, Range, UseCase


def training_key(use_case: UseCase, data_digest: str, seed: int) -> str:
    """A digest of everything that decides a training's result: rows, split, families, seed and dosel's version."""
    return _digest_of(*(family_key(use_case, family, data_digest, seed) for family in use_case.families))


def family_key(use_case: UseCase, family: Family, data_digest: str, seed: int) -> str:
    """A digest of everything that decides a family's result."""
    return _digest_of(
        dosel.__version__,
        use_case.name,
        data_digest,
        splits.split_version(use_case),
        use_case.folds,
        use_case.gate.metric,
        use_case.preprocessing,
        declaration(use_case),
        family.name,
        family.search,
        *_later_options(family),
        sorted((name, values if isinstance(values, Range) else tuple(values)) for name, values in family.space.items()),
        seed,
    )


def _digest_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _later_options(family: Family) -> tuple[object, ...]:
    """What newer options add to the family's key: nothing at their defaults, so that older keys stay."""
    at_once = (family.search.at_once,) if family.search.at_once > 1 else ()
    return (*at_once, *(("partitioned",) if family.partitioned else ()))
