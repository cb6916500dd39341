"""The statistics of Covertype that `external.generator` builds on. Rounded figures only, no rows.

Sources: class, area and soil counts, ranges and per-class means are those published with the data set
(Blackard, J. (1998), Covertype, UCI Machine Learning Repository, doi 10.24432/C50K5N, CC BY 4.0). The rest -
deviations within a class, correlations, aspects, hillshade angles, soils within an area - was estimated from a
stratified sample of 7,000 real rows and raked until the counts of areas and soils came out as published.
"""

CLASS_COUNTS = (211_840, 283_301, 35_754, 2_747, 9_493, 17_367, 20_510)

# Rows of each class (a line) in Rawah, Neota, Commanche and Cache.
AREA_COUNTS = (
    (105_717, 18_595, 87_528, 0),
    (146_197, 8_985, 125_093, 3_026),
    (0, 0, 14_300, 21_454),
    (0, 0, 0, 2_747),
    (3_781, 0, 5_712, 0),
    (0, 0, 7_626, 9_741),
    (5_101, 2_304, 13_105, 0),
)

# Smallest and largest value; metres, degrees, and 0-255 for the hillshades.
RANGES = {
    "Elevation": (1859, 3858),
    "Aspect": (0, 360),
    "Slope": (0, 66),
    "Horizontal_Distance_To_Hydrology": (0, 1397),
    "Vertical_Distance_To_Hydrology": (-173, 601),
    "Horizontal_Distance_To_Roadways": (0, 7117),
    "Hillshade_9am": (0, 254),
    "Hillshade_Noon": (0, 254),
    "Hillshade_3pm": (0, 254),
    "Horizontal_Distance_To_Fire_Points": (0, 7173),
}

# Mean and deviation within class 1, 2, ..., 7; metres and degrees.
MEANS = {
    "Elevation": (3128.6, 2920.9, 2394.5, 2223.9, 2787.4, 2419.2, 3361.9),
    "Slope": (13.1, 13.6, 20.8, 18.5, 16.6, 19.0, 14.3),
    "Horizontal_Distance_To_Hydrology": (271, 280, 210, 107, 212, 160, 357),
    "Vertical_Distance_To_Hydrology": (42, 46, 62, 41, 51, 45, 69),
    "Horizontal_Distance_To_Roadways": (2615, 2430, 944, 914, 1350, 1037, 2738),
    "Horizontal_Distance_To_Fire_Points": (2009, 2168, 911, 859, 1578, 1055, 2070),
}
DEVIATIONS = {
    "Elevation": (155, 186, 196, 102, 96, 190, 106),
    "Slope": (7, 7, 9, 9, 8, 7, 7),
    "Horizontal_Distance_To_Hydrology": (219, 216, 144, 138, 185, 131, 297),
    "Vertical_Distance_To_Hydrology": (54, 62, 59, 58, 59, 48, 81),
    "Horizontal_Distance_To_Roadways": (1528, 1657, 573, 364, 1065, 520, 1149),
    "Horizontal_Distance_To_Fire_Points": (1264, 1470, 576, 490, 974, 591, 1102),
}

# Rank correlations within a class, in the order of MEANS.
CORRELATIONS = (
    (1.00, -0.04, 0.33, 0.21, 0.28, 0.03),
    (-0.04, 1.00, 0.06, 0.32, -0.13, -0.11),
    (0.33, 0.06, 1.00, 0.64, 0.04, 0.06),
    (0.21, 0.32, 0.64, 1.00, 0.02, 0.02),
    (0.28, -0.13, 0.04, 0.02, 1.00, 0.31),
    (0.03, -0.11, 0.06, 0.02, 0.31, 1.00),
)

# Where the slopes of each class face: mean direction in degrees and length of the mean resultant vector.
ASPECTS = ((35, 0.31), (53, 0.26), (23, 0.21), (98, 0.48), (88, 0.33), (355, 0.56), (67, 0.27))

# The share of negative heights above water, and how deep they go in units of the positive ones.
BELOW_WATER = 0.068
DEPTH_BELOW_WATER = 0.35

# The sun of each hillshade: zenith angle, azimuth (degrees) and what the formula leaves unexplained.
SUNS = {
    "Hillshade_9am": (31.2, 114.0, 0.6),
    "Hillshade_Noon": (21.2, 218.0, 0.7),
    "Hillshade_3pm": (52.2, 269.0, 3.0),
}

# How much further (1 = the mean of the class) roads and fire points are in Rawah, Neota, Commanche, Cache.
REMOTENESS = {
    "Horizontal_Distance_To_Roadways": (1.19, 0.33, 0.84, 0.90),
    "Horizontal_Distance_To_Fire_Points": (1.21, 0.55, 0.88, 0.88),
}

# Metres by which a soil lies above (or below) the mean of the class it carries.
SOIL_HEIGHTS = {
    **{2702: -150, 2703: 40, 2705: 70, 2706: -140, 2717: 50, 4201: -100, 4703: -40, 4704: 30},
    **{4744: -120, 4758: 70, 5101: -70, 6101: -80, 6102: -50, 6731: -210, 7101: 30, 7102: -40},
    **{7201: 30, 7700: 20, 7702: 10, 7709: 70, 7710: -20, 7746: -20, 7755: 10, 7756: 100},
    **{7757: 40, 7790: 70, 8707: 40, 8708: 20, 8771: 20, 8776: 140},
}

# Soils (ELU code: share in thousandths) of a class in an area, both numbered as UCI does.
SOILS = {
    (1, 1): ("4744:27 6101:8 7101:8 7102:27 7201:148 7202:151 7700:4 7745:377 7746:80 8703:4 8771:49 8772:67 8776:48"),
    (1, 2): (
        "2705:1 4703:0.3 4704:1 4744:3 4758:1 6101:1 6102:0.4 7101:1 7102:4 7103:1 7201:302 "
        "7202:301 7700:143 7702:1 7745:43 7746:9 7755:8 7756:95 7757:63 8703:0.4 8771:9 "
        "8772:9 8776:6"
    ),
    (1, 3): (
        "2705:10 4703:4 4704:9 4758:17 6102:5 7101:7 7102:11 7103:9 7201:43 7202:211 7700:81 "
        "7702:9 7755:119 7756:216 7757:187 8771:47 8772:13"
    ),
    (2, 1): (
        "3501:1 3502:1 4201:8 4744:183 6101:10 6731:12 7101:16 7102:28 7201:41 7202:56 7700:18 7745:492 7746:130 8771:4"
    ),
    (2, 2): (
        "2703:0.3 2705:3 3502:0.2 4201:1 4703:7 4704:7 4744:31 4758:11 6101:2 6102:1 6731:2 "
        "7101:3 7102:5 7201:150 7202:249 7700:215 7702:1 7709:1 7710:1 7745:83 7746:22 "
        "7755:11 7756:145 7757:46 7790:1 8771:1"
    ),
    (2, 3): (
        "2703:3 2705:32 4703:74 4704:71 4758:108 6101:2 6102:7 7102:7 7201:3 7202:45 7700:48 "
        "7701:4 7702:14 7709:8 7710:7 7755:116 7756:233 7757:204 7790:12 8707:1"
    ),
    (2, 4): ("2702:45 2703:28 2704:227 2705:18 2706:21 2717:194 4703:399 4704:7 5101:29 6101:3 6102:30"),
    (3, 3): ("2703:302 2705:412 4703:161 4704:99 6102:20 7756:7"),
    (3, 4): ("2702:93 2703:44 2704:116 2705:19 2706:46 2717:196 4703:464 4704:7 5101:2 6101:2 6102:12"),
    (4, 4): ("2702:46 2703:27 2704:571 2705:36 2706:13 2717:96 4703:58 4704:6 5101:68 6101:5 6102:75"),
    (5, 1): ("6101:11 6731:39 7202:63 7700:8 7745:304 7746:574"),
    (5, 3): (
        "2703:55 2705:98 4703:69 4704:112 4758:271 6102:87 7101:22 7102:3 7202:77 7702:13 "
        "7710:4 7755:56 7756:69 7757:60 7790:6"
    ),
    (6, 3): ("2703:94 2705:43 4703:451 4704:22 4758:103 6102:82 7102:47 7202:7 7700:8 7755:4 7756:30 7757:99 7790:8"),
    (6, 4): ("2702:80 2703:69 2704:9 2705:9 2706:52 2717:157 4703:564 4704:23 5101:29 5151:0.3 6101:4 6102:5"),
    (7, 1): ("7202:40 7745:130 7746:30 8703:56 8708:55 8771:280 8772:244 8776:165"),
    (7, 2): (
        "2705:1 7201:171 7202:201 7700:123 7709:1 7745:16 7746:4 7755:4 7756:81 7757:42 "
        "8703:33 8707:0.5 8708:7 8771:121 8772:118 8776:78"
    ),
    (7, 3): (
        "2705:4 7103:0.5 7201:14 7202:25 7700:6 7709:3 7755:12 7756:32 7757:39 8703:88 8707:2 "
        "8771:288 8772:293 8776:193"
    ),
}
