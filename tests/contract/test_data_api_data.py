"""The rows of the data API: the generator's statistics, CSV files and the download."""

import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import monotonic

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from external import download
from external.columns import COLUMNS, COVER, NUMERIC, SOIL, WILDERNESS, area_number, as_words, coded, soil_number
from external.data import load
from external.download import DownloadError, cached, probe, run_child, save
from external.generator import generate
from external.sampling import draw
from external.settings import Coding, Settings, StartError, read_settings
from external.table import read_csv

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "covertype.csv"
GOOD = "2596,51,3,258,0,510,221,232,148,6279,Rawah,C7745,5"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return generate(116_203, 0)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_class_frequencies_equal_the_published_frequencies(rows: pd.DataFrame) -> None:
    published = np.array([211_840, 283_301, 35_754, 2_747, 9_493, 17_367, 20_510]) / 581_012
    shares = rows[COVER].value_counts(normalize=True).sort_index()
    assert shares.index.tolist() == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(shares, published, atol=1e-4)


def test_values_lie_in_the_published_ranges(rows: pd.DataFrame) -> None:
    lowest = [1859, 0, 0, 0, -173, 0, 0, 0, 0, 0, 1, 1, 1]
    highest = [3858, 360, 66, 1397, 601, 7117, 254, 254, 254, 7173, 4, 40, 7]
    assert (rows.min().to_numpy() >= lowest).all()
    assert (rows.max().to_numpy() <= highest).all()
    assert rows[SOIL].nunique() == 40


@pytest.mark.parametrize(
    ("column", "means", "tolerance"),
    [
        ("Elevation", (3129, 2921, 2395, 2224, 2787, 2419, 3362), 15),
        ("Aspect", (156, 152, 176, 137, 139, 181, 153), 15),
        ("Slope", (13, 14, 21, 18, 17, 19, 14), 1),
        ("Horizontal_Distance_To_Hydrology", (271, 280, 210, 107, 212, 160, 357), 15),
        ("Vertical_Distance_To_Hydrology", (42, 46, 62, 41, 51, 45, 69), 6),
        ("Horizontal_Distance_To_Roadways", (2615, 2430, 944, 914, 1350, 1037, 2738), 80),
        ("Hillshade_9am", (212, 214, 202, 228, 224, 193, 217), 8),
        ("Hillshade_Noon", (223, 225, 216, 217, 219, 210, 222), 5),
        ("Hillshade_3pm", (144, 143, 140, 111, 122, 148, 135), 12),
        ("Horizontal_Distance_To_Fire_Points", (2009, 2168, 911, 859, 1578, 1055, 2070), 60),
    ],
)
def test_class_means_are_near_the_published_means(
    rows: pd.DataFrame, column: str, means: tuple[int, ...], tolerance: int
) -> None:
    np.testing.assert_allclose(rows.groupby(COVER)[column].mean(), means, atol=tolerance)


def test_columns_are_correlated_as_published(rows: pd.DataFrame) -> None:
    assert (rows["Vertical_Distance_To_Hydrology"] < 0).mean() == pytest.approx(0.068, abs=0.01)
    ranks = rows[list(NUMERIC)].rank()
    for one, other, lowest, highest in (
        ("Horizontal_Distance_To_Hydrology", "Vertical_Distance_To_Hydrology", 0.4, 0.8),
        ("Elevation", "Horizontal_Distance_To_Roadways", 0.3, 0.7),
        ("Hillshade_9am", "Hillshade_3pm", -0.95, -0.6),
    ):
        assert lowest < ranks[one].corr(ranks[other]) < highest
    # Soils depend on the area: C2717 occurs in Cache only, and C7745 never does.
    assert set(rows.loc[rows[SOIL] == soil_number("C2717"), WILDERNESS]) == {4}
    assert 4 not in set(rows.loc[rows[SOIL] == soil_number("C7745"), WILDERNESS])


def test_every_slice_has_every_class(rows: pd.DataFrame) -> None:
    for tenth in range(10):
        assert draw(rows, tenth, 1.0, (0,))[COVER].nunique() == 7


def test_generation_is_seeded() -> None:
    first = generate(116_203, 3)
    pd.testing.assert_frame_equal(first, generate(116_203, 3))
    assert not first.equals(generate(116_203, 4))


@pytest.mark.parametrize("count", [11_620, pytest.param(116_203, marks=pytest.mark.soak)])
def test_a_forest_learns_from_generated_rows_and_no_single_column_suffices(count: int) -> None:
    table = generate(count, 1)
    parts = train_test_split(table.drop(columns=COVER), table[COVER], test_size=0.2, random_state=0)
    known, held_out, known_class, held_out_class = parts
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), [WILDERNESS, SOIL]), (StandardScaler(), list(NUMERIC))
    )
    forest = RandomForestClassifier(n_estimators=80, max_depth=12, random_state=0, n_jobs=2)
    accuracy = make_pipeline(encode, forest).fit(known, known_class).score(held_out, held_out_class)
    assert 0.65 <= accuracy <= 0.95

    for column in known:
        for depth in (5, 10):
            tree = DecisionTreeClassifier(max_depth=depth, random_state=0)
            alone = tree.fit(known[[column]], known_class).score(held_out[[column]], held_out_class)
            assert alone <= 0.70


@pytest.mark.parametrize(
    ("size", "fraction", "expected"), [(581_012, 0.1, 5_810), (581_012, 1.0, 58_101), (1_000, 0.29, 29), (10, 0.1, 1)]
)
def test_a_sample_has_the_configured_share_of_its_slice(size: int, fraction: float, expected: int) -> None:
    table = pd.DataFrame({"position": np.arange(size)})
    sample = draw(table, 9, fraction, (0,))
    assert len(sample) == expected
    assert sample["position"].is_unique
    assert sample["position"].between(size // 10 * 9, size // 10 * 10 - 1).all()


@pytest.mark.parametrize("text", ["C7745", "c7745", "7745", "ELU7745", "29", "Soil_Type29", "soil type 29", " 29 "])
def test_every_spelling_of_a_soil_type_is_read(text: str) -> None:
    assert soil_number(text) == 29


@pytest.mark.parametrize("text", ["", "C9999", "C29", "0029", "0", "41", "C", "soil", "7745x", "-1"])
def test_an_unknown_soil_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no soil type"):
        soil_number(text)


@pytest.mark.parametrize("text", ["Commanche", "COMANCHE", "Comanche Peak", "3", "Wilderness_Area3"])
def test_every_spelling_of_an_area_is_read(text: str) -> None:
    assert area_number(text) == 3


def test_a_csv_may_have_a_header_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    fields = GOOD.split(",")
    path.write_text("\ufeff" + ",".join(reversed(COLUMNS)) + "\n\n" + ",".join(reversed(fields)) + "\n")
    assert as_words(read_csv(path, "uci"), 1) == [fields]


@pytest.mark.parametrize("header", ["", ",".join([*NUMERIC, *(f"flag{n}" for n in range(44)), COVER]) + "\n"])
def test_the_csv_published_by_uci_is_read(tmp_path: Path, header: str) -> None:
    path = tmp_path / "covtype.data"
    flags = ["1" if n in (0, 4 + 28) else "0" for n in range(44)]
    path.write_text(header + ",".join([*GOOD.split(",")[:10], *flags, "5"]) + "\n")
    assert as_words(read_csv(path, "uci"), 1) == [GOOD.split(",")]


@pytest.mark.parametrize(
    ("line", "coding", "message"),
    [
        (GOOD + ",1", "uci", "line 3: 14 columns, expected 13"),
        ("1,2,3", "uci", "line 3: 3 columns, expected 13"),
        (GOOD.replace("2596", "high"), "uci", "line 3, column Elevation: 'high' is no number"),
        (GOOD.replace("258", "2.5"), "uci", "line 3, column Horizontal_Distance_To_Hydrology: '2.5' is not a whole"),
        (GOOD.replace(",51,", ",,"), "uci", "line 3, column Aspect: '' is no number"),
        (GOOD.replace(",51,", ",nan,"), "uci", "line 3, column Aspect: 'nan' is not a whole number"),
        (GOOD.replace("Rawah", "Yosemite"), "uci", "line 3, column Wilderness_Area: 'Yosemite' is no wilderness"),
        (GOOD.replace("C7745", "C9999"), "uci", "line 3, column Soil_Type: 'C9999' is no soil type"),
        (GOOD[:-1] + "0", "uci", "line 3, column Cover_Type: '0' is no class of DATA_API_CSV_CLASSES=uci"),
        (GOOD[:-1] + "7", "course", "line 3, column Cover_Type: '7' is no class of DATA_API_CSV_CLASSES=course"),
    ],
)
def test_an_invalid_csv_gets_an_error_with_file_line_and_column(
    tmp_path: Path, line: str, coding: Coding, message: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{GOOD}\n{GOOD}\n{line}\n")
    with pytest.raises(StartError) as error:
        read_csv(path, coding)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows"),
        (GOOD.encode(), "has 1 rows; 10 batches need at least 10"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a,b\n1,2\n", "line 1: 2 columns, expected 13"),
        (",".join([*COLUMNS[:-1], "Class"]).encode(), r"line 1: not the columns of Covertype \('Class'\)"),
    ],
)
def test_an_invalid_file_stops_the_start(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(StartError, match=message):
        load(Settings(data_api_csv=path))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATA_API_ROWS", "9"),
        ("DATA_API_ROWS", "many"),
        ("DATA_API_CLASSES", "iris"),
        ("DATA_API_CSV_CLASSES", "0-6"),
        ("DATA_API_SEED", "-1"),
        ("DATA_API_FETCH", "maybe"),
        ("DATA_API_FETCH_TIMEOUT", "0"),
        ("MIN_UPDATE_TIME", "-1"),
        ("MIN_UPDATE_TIME", "nan"),
        ("BATCH_FRACTION", "0"),
        ("BATCH_FRACTION", "1.1"),
        ("SLICE_BY", "day"),
    ],
)
def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartError) as error:
        read_settings()
    assert str(error.value).startswith(f"{variable}={value!r}: ")
    assert "\n" not in str(error.value)


def test_empty_settings_have_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    settings = read_settings()
    assert (settings.min_update_time, settings.batch_fraction, settings.slice_by) == (300, 0.1, "batch")
    assert (settings.data_api_rows, settings.data_api_classes) == (116_203, "uci")


def fetched(path: Path, count: int) -> None:
    """Write the file that the child process leaves at `path` after a download of `count` rows."""
    features = np.zeros((count, 54))
    features[:, 0] = 2000 + np.arange(count)
    features[:, [10, 14 + 28]] = 1
    save(path, features, np.full(count, 5))


def test_downloaded_rows_are_served_and_cached(tmp_path: Path) -> None:
    asked = []

    def fetch(target: Path, seconds: float) -> None:
        asked.append(seconds)
        fetched(target, 50)

    settings = Settings(data_api_state_dir=tmp_path)
    for _ in range(2):
        data = load(settings, fetch)
        assert (data.source, len(data.rows)) == ("fetch_covtype", 50)
        assert as_words(data.rows, 1)[1][10:] == ["Rawah", "C7745", "5"]
    assert asked == [60.0]


def test_a_broken_cache_is_downloaded_again(tmp_path: Path) -> None:
    fetched(tmp_path / download.CACHE, 50)
    whole = (tmp_path / download.CACHE).read_bytes()
    (tmp_path / download.CACHE).write_bytes(whole[: len(whole) // 2])
    assert cached(tmp_path / download.CACHE) is None
    settings = Settings(data_api_state_dir=tmp_path)
    assert load(settings, lambda target, _: fetched(target, 60)).rows.shape == (60, 13)


def test_rows_are_generated_when_the_download_fails(tmp_path: Path) -> None:
    def fetch(target: Path, seconds: float) -> None:
        raise DownloadError("no network")

    data = load(Settings(data_api_state_dir=tmp_path, data_api_rows=100), fetch)
    assert (data.source, len(data.rows), data.note) == ("generated", 100, "fetch_covtype: no network")


def test_the_child_process_is_stopped_at_its_time_limit() -> None:
    begun = monotonic()
    with pytest.raises(DownloadError, match=r"took more than 0\.5 s"):
        run_child((sys.executable, "-c", "import signal; signal.pause()"), 0.5)
    assert monotonic() - begun < 5


def test_the_child_process_exits_by_itself_after_its_time_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "external.download", str(tmp_path), "0.01"]
    child = subprocess.run(command, cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGALRM


def test_a_failed_child_process_reports_the_reason() -> None:
    with pytest.raises(DownloadError, match="the download failed: full disk"):
        run_child((sys.executable, "-c", "import sys; sys.exit('full disk')"), 30)


def test_an_incomplete_download_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(command: tuple[str, ...], seconds: float) -> None:
        (Path(command[3]) / "half").write_text("half")
        raise DownloadError("cut short")

    monkeypatch.setattr(download, "probe", lambda seconds: None)
    monkeypatch.setattr(download, "run_child", cut_short)
    with pytest.raises(DownloadError, match="cut short"):
        download.download(tmp_path / download.CACHE, 5)
    assert not list(tmp_path.iterdir())


def test_an_unreachable_archive_is_detected_quickly() -> None:
    begun = monotonic()
    # Nothing listens at port 9 of this machine.
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 does not answer"):
        probe(3.0, proxies=lambda: {"https": "http://127.0.0.1:9"})
    assert monotonic() - begun < 3.5


def test_a_silent_host_is_given_up_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    end = Event()

    def connect(*_: object, **__: object) -> None:
        end.wait()
        raise OSError

    monkeypatch.setattr("socket.create_connection", connect)
    begun = monotonic()
    with pytest.raises(DownloadError, match="does not answer"):
        probe(0.2, proxies=dict)
    assert monotonic() - begun < 2
    end.set()


@pytest.mark.parametrize("values", [np.zeros((5, 12)), np.full((5, 13), 40_000)])
def test_a_downloaded_table_of_another_shape_or_range_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|outside"):
        coded(values)


@pytest.mark.skipif(not SHARED.exists(), reason="the sample of real rows is not on this machine")
def test_published_rows_are_unchanged_after_reading_and_writing() -> None:
    lines = SHARED.read_text(encoding="utf-8").splitlines()[1:]
    assert as_words(read_csv(SHARED, "uci"), 1) == [line.split(",") for line in lines]
