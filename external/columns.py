"""The thirteen columns, and the words and codes of two of them in other files.

Inside this package a row is thirteen small integers: ten measurements, the wilderness area as 1-4, the
soil type as 1-40 and the cover type as 1-7 (UCI's numbering of all three). Words appear only on the wire.
"""

import re

import numpy as np
import pandas as pd

NUMERIC = (
    "Elevation",
    "Aspect",
    "Slope",
    "Horizontal_Distance_To_Hydrology",
    "Vertical_Distance_To_Hydrology",
    "Horizontal_Distance_To_Roadways",
    "Hillshade_9am",
    "Hillshade_Noon",
    "Hillshade_3pm",
    "Horizontal_Distance_To_Fire_Points",
)
WILDERNESS, SOIL, COVER = "Wilderness_Area", "Soil_Type", "Cover_Type"
COLUMNS = (*NUMERIC, WILDERNESS, SOIL, COVER)

# In UCI's order. "Commanche" is the spelling the clients of this API know.
AREAS = ("Rawah", "Neota", "Commanche", "Cache")

# US Forest Service Ecological Landtype Units, in UCI's order of soil types 1-40.
ELU = (
    *(2702, 2703, 2704, 2705, 2706, 2717, 3501, 3502, 4201, 4703),
    *(4704, 4744, 4758, 5101, 5151, 6101, 6102, 6731, 7101, 7102),
    *(7103, 7201, 7202, 7700, 7701, 7702, 7709, 7710, 7745, 7746),
    *(7755, 7756, 7757, 7790, 8703, 8707, 8708, 8771, 8772, 8776),
)
CLASSES = 7

_AREA_BY_WORD = {area.lower(): number for number, area in enumerate(AREAS, start=1)} | {"comanche": 3}
_SOIL_BY_CODE = {code: number for number, code in enumerate(ELU, start=1)}
_AREA = re.compile(r"(?:wilderness[ _]?area[ _]?)?([1-4])")
_CODE = re.compile(r"(?:c|elu)?[ _]?(\d{4})")
_SOIL = re.compile(r"(?:soil[ _]?type[ _]?)?(\d{1,2})")


def area_number(text: str) -> int:
    """The area 1-4 behind a word ("Rawah", "Comanche Peak"), a number or "Wilderness_Area1".

    Raises:
        ValueError: no area has this name.
    """
    plain = text.strip().lower()
    if match := _AREA.fullmatch(plain):
        return int(match[1])
    word = plain.partition(" ")[0]
    if word not in _AREA_BY_WORD:
        raise ValueError(f"{text!r} is no wilderness area ({', '.join(AREAS)} or 1-4)")
    return _AREA_BY_WORD[word]


def soil_number(text: str) -> int:
    """The soil type 1-40 behind "C7745", "7745", "29" or "Soil_Type29".

    The ELU codes have four digits and the soil types one or two, so the digits tell which one it is.

    Raises:
        ValueError: neither an ELU code of Covertype nor 1-40.
    """
    plain = text.strip().lower()
    number = 0
    if match := _CODE.fullmatch(plain):
        number = _SOIL_BY_CODE.get(int(match[1]), 0)
    elif match := _SOIL.fullmatch(plain):
        number = int(match[1])
    if not 1 <= number <= len(ELU):
        raise ValueError(f"{text!r} is no soil type (C + an ELU code, the code, or 1-40)")
    return number


def as_words(rows: pd.DataFrame, first_class: int) -> list[list[str]]:
    """Rows as the API sends them: thirteen strings each, in the order of `COLUMNS`.

    Args:
        rows: coded rows, with `COLUMNS`.
        first_class: what Spruce/Fir is called on the wire: 1 in UCI's coding, 0 in the course's.
    """
    columns = [list(map(str, rows[name].tolist())) for name in NUMERIC]
    columns.append([AREAS[number - 1] for number in rows[WILDERNESS].tolist()])
    columns.append([f"C{ELU[number - 1]}" for number in rows[SOIL].tolist()])
    columns.append([str(number - 1 + first_class) for number in rows[COVER].tolist()])
    return [list(row) for row in zip(*columns, strict=True)]


def coded(values: np.ndarray) -> pd.DataFrame:
    """A table of `(rows, 13)` coded integers as a frame of int16, which has room for every range of Covertype.

    Raises:
        ValueError: another shape, or a value that does not fit.
    """
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise ValueError(f"expected (rows, {len(COLUMNS)}) values, got {values.shape}")
    limits = np.iinfo(np.int16)
    if values.size and not (limits.min <= values.min() and values.max() <= limits.max):
        raise ValueError(f"a value lies outside {limits.min}..{limits.max}")
    return pd.DataFrame(values.astype(np.int16), columns=list(COLUMNS))
