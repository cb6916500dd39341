"""The cache on disk: which versions are kept."""

from pathlib import Path

from dosel.model.cache import OTHER_VERSIONS, ModelCache


def test_the_version_in_production_stays_cached_while_shadow_versions_change(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model").write_text("a model")
    cache = ModelCache(tmp_path / "cache", b"key")
    assert cache.add("trees", 1, files, b"record")
    cache.set_last("trees", 1)
    numbers = range(2, 2 + 2 * OTHER_VERSIONS)
    for number in numbers:
        assert cache.add("trees", number, files, b"record")
    kept = [number for number in (1, *numbers) if cache.record("trees", number) is not None]
    assert kept == [1, *numbers[-OTHER_VERSIONS:]]
