"""Forest cover type of 30 m cells in Colorado (UCI Covertype, CC BY 4.0).

Bounds are those of the 581,012 published rows, rounded outward; a vertical distance to water is negative
where the cell lies below it. Soil types are the four-digit codes of the USFS ecological land units.
"""

from typing import Any

from dosel.usecases._estimators import lightgbm, random_forest
from dosel.usecases.declaration import Family, Gate, Monitor, Split, UseCase
from dosel.usecases.features import Category, Choice, Number, Target

_SOILS = {
    2702: "Cathedral family - Rock outcrop complex, extremely stony",
    2703: "Vanet - Ratake families complex, very stony",
    2704: "Haploborolis - Rock outcrop complex, rubbly",
    2705: "Ratake family - Rock outcrop complex, rubbly",
    2706: "Vanet family - Rock outcrop complex, rubbly",
    2717: "Vanet - Wetmore families - Rock outcrop complex, stony",
    3501: "Gothic family",
    3502: "Supervisor - Limber families complex",
    4201: "Troutville family, very stony",
    4703: "Bullwark - Catamount families - Rock outcrop complex, rubbly",
    4704: "Bullwark - Catamount families - Rock land complex, rubbly",
    4744: "Legault family - Rock land complex, stony",
    4758: "Catamount family - Rock land - Bullwark family complex, rubbly",
    5101: "Pachic Argiborolis - Aquolis complex",
    5151: "Unspecified in the USFS soil and ELU survey",
    6101: "Cryaquolis - Cryoborolis complex",
    6102: "Gateview family - Cryaquolis complex",
    6731: "Rogert family, very stony",
    7101: "Typic Cryaquolis - Borohemists complex",
    7102: "Typic Cryaquepts - Typic Cryaquolls complex",
    7103: "Typic Cryaquolls - Leighcan family, till substratum complex",
    7201: "Leighcan family, till substratum, extremely bouldery",
    7202: "Leighcan family, till substratum - Typic Cryaquolls complex",
    7700: "Leighcan family, extremely stony",
    7701: "Leighcan family, warm, extremely stony",
    7702: "Granile - Catamount families complex, very stony",
    7709: "Leighcan family, warm - Rock outcrop complex, extremely stony",
    7710: "Leighcan family - Rock outcrop complex, extremely stony",
    7745: "Como - Legault families complex, extremely stony",
    7746: "Como family - Rock land - Legault family complex, extremely stony",
    7755: "Leighcan - Catamount families complex, extremely stony",
    7756: "Catamount family - Rock outcrop - Leighcan family complex, extremely stony",
    7757: "Leighcan - Catamount families - Rock outcrop complex, extremely stony",
    7790: "Cryorthents - Rock land complex, extremely stony",
    8703: "Cryumbrepts - Rock outcrop - Cryaquepts complex",
    8707: "Bross family - Rock land - Cryumbrepts complex, extremely stony",
    8708: "Rock outcrop - Cryumbrepts - Cryorthents complex, extremely stony",
    8771: "Leighcan - Moran families - Cryaquolls complex, extremely stony",
    8772: "Moran family - Cryorthents - Leighcan family complex, extremely stony",
    8776: "Moran family - Cryorthents - Rock land complex, extremely stony",
}
_ABOVE_WATER = "Vertical distance to the nearest surface water; negative where the cell lies below it."


def _extra_trees(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(random_state=seed)


def _distance(suffix: str, to: str, maximum: int, example: int, exactly: str) -> Number:
    name, words = f"Horizontal_Distance_To_{suffix}", f"Horizontal distance to {exactly}."
    return Number(name, f"Distance to {to}", "m", 0, maximum, example, words)


def _hillshade(name: str, when: str, example: int) -> Number:
    words = f"Illumination at the summer solstice, {when}: 0 is full shade, 255 full sun."
    return Number(name, f"Hillshade {when}", "", 0, 255, example, words, scaling="minmax")


COVERTYPE = UseCase(
    name="covertype",
    title="Forest cover type",
    summary="Which trees dominate a 30 m x 30 m cell of forest, from its terrain, soil and wilderness area.",
    features=(
        Number("Elevation", "Elevation", "m", 1800, 4000, 2544, "Height of the cell above sea level."),
        Number("Aspect", "Aspect", "°", 0, 360, 39, "Compass direction the slope faces.", scaling="minmax"),
        Number("Slope", "Slope", "°", 0, 90, 17, "Steepness of the cell."),
        _distance("Hydrology", "water", 1500, 0, "the nearest surface water"),
        Number("Vertical_Distance_To_Hydrology", "Height above water", "m", -250, 700, 0, _ABOVE_WATER),
        _distance("Roadways", "a road", 7500, 824, "the nearest road"),
        _hillshade("Hillshade_9am", "at 9 am", 218),
        _hillshade("Hillshade_Noon", "at noon", 199),
        _hillshade("Hillshade_3pm", "at 3 pm", 111),
        _distance("Fire_Points", "a fire point", 7500, 979, "the nearest point where a wildfire was ignited"),
        Category(
            "Wilderness_Area",
            "Wilderness area",
            (
                Choice("Rawah", "Rawah"),
                Choice("Neota", "Neota"),
                Choice("Commanche", "Comanche Peak", ("Comanche", "Comanche Peak")),
                Choice("Cache", "Cache la Poudre", ("Cache la Poudre",)),
            ),
            "Commanche",
            "Wilderness area the cell lies in.",
        ),
        Category(
            "Soil_Type",
            "Soil type",
            tuple(Choice(f"C{code}", f"{code}: {name}", (str(code),)) for code, name in _SOILS.items()),
            "C7102",
            "Soil, as C and the four-digit code of the USFS ecological land unit.",
        ),
    ),
    target=Target(
        "Cover_Type",
        "Cover type",
        {
            1: "Spruce/Fir",
            2: "Lodgepole Pine",
            3: "Ponderosa Pine",
            4: "Cottonwood/Willow",
            5: "Aspen",
            6: "Douglas-fir",
            7: "Krummholz",
        },
        codings={"uci": 0, "course": 1},
    ),
    experiment="covertype_training_experiment",
    model_name="modelo_covertype_vf",
    families=(
        Family(
            "random_forest",
            random_forest,
            {"n_estimators": (10, 50, 80), "max_depth": (5, 8, 12), "min_samples_split": (2, 5, 10)},
            strategy="forest_prefixes",
        ),
        Family(
            "extra_trees",
            _extra_trees,
            {"n_estimators": (40, 80), "max_features": ("sqrt", 0.3)},
            strategy="forest_prefixes",
        ),
        Family("lightgbm", lightgbm, {"n_estimators": (100,), "num_leaves": (15, 31), "learning_rate": (0.2,)}),
    ),
    split=Split(salt="covertype-1"),
    default=True,
    gate=Gate("accuracy", min_gain=0.001, tolerance=0.01, max_class_drop=0.10, floor=0.55),
    monitor=Monitor(on_harm=("notify", "retrain")),
    expose_training_rows=True,
)
