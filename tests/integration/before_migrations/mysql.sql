-- A data store of the last version without migrations: its own DDL, as the server returned it, and a few rows.

CREATE TABLE `batches` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `use_case` varchar(64) NOT NULL,
  `stream` varchar(64) NOT NULL,
  `epoch` varchar(64) NOT NULL,
  `number` int(11) NOT NULL,
  `source` varchar(255) NOT NULL,
  `received_at` datetime(6) NOT NULL,
  `rows_received` int(11) NOT NULL,
  `rows_clean` int(11) NOT NULL,
  `rows_refused` int(11) NOT NULL,
  `rows_duplicate` int(11) NOT NULL,
  `digest` varchar(64) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `use_case` (`use_case`,`stream`,`epoch`,`number`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `batches` VALUES (1, 'penguins', 'table', 'f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2', 1, 'package palmerpenguins: data/penguins.csv', '2026-11-24 22:30:15.765825', 3, 2, 1, 0, 'bd9557e4f644531ac96c2d08be4b10a5002262dc70c9c1c3112a7fbde24e35d9');

CREATE TABLE `manifests` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `model` varchar(128) NOT NULL,
  `version` int(11) NOT NULL,
  `run_id` varchar(64) NOT NULL,
  `at` datetime(6) NOT NULL,
  `digest` varchar(64) NOT NULL,
  `files` mediumtext NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `model` (`model`,`version`,`run_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `manifests` VALUES (1, 'modelo_covertype_vf', 1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '2026-11-24 22:30:16.125280', '8366f472c1159203df28992ef6b8c19097a673271096c837b5421d61d1308e23', '{"MLmodel": "1111111111111111111111111111111111111111111111111111111111111111", "model.skops": "0000000000000000000000000000000000000000000000000000000000000000"}');

CREATE TABLE `penguins_clean` (
  `batch_id` bigint(20) NOT NULL,
  `row_no` int(11) NOT NULL,
  `row_key` bigint(20) NOT NULL,
  `island` varchar(64) NOT NULL,
  `bill_length_mm` double NOT NULL,
  `bill_depth_mm` double NOT NULL,
  `flipper_length_mm` int(11) NOT NULL,
  `body_mass_g` int(11) NOT NULL,
  `sex` varchar(64) NOT NULL,
  `species` int(11) NOT NULL,
  PRIMARY KEY (`batch_id`,`row_no`),
  UNIQUE KEY `row_key` (`row_key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `penguins_clean` VALUES (1, 0, -3506545544297716848, 'Biscoe', 45.5, 15.2, 211, 4700, 'female', 2);

INSERT INTO `penguins_clean` VALUES (1, 1, 7710124250307335058, 'Torgersen', 39.1, 18.7, 181, 3750, 'male', 0);

CREATE TABLE `penguins_quarantine` (
  `batch_id` bigint(20) NOT NULL,
  `row_no` int(11) NOT NULL,
  `reason` text NOT NULL,
  PRIMARY KEY (`batch_id`,`row_no`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `penguins_quarantine` VALUES (1, 2, 'bill_length_mm: a number from 25 to 70 mm expected, got ''NA''; bill_depth_mm: a number from 10 to 25 mm expected, got ''NA''; flipper_length_mm: a whole number from 150 to 250 mm expected, got ''NA''; body_mass_g: a whole number from 2000 to 8000 g expected, got ''NA''; sex: one of female, male expected, got ''NA''');

CREATE TABLE `penguins_raw` (
  `batch_id` bigint(20) NOT NULL,
  `row_no` int(11) NOT NULL,
  `island` mediumtext DEFAULT NULL,
  `bill_length_mm` mediumtext DEFAULT NULL,
  `bill_depth_mm` mediumtext DEFAULT NULL,
  `flipper_length_mm` mediumtext DEFAULT NULL,
  `body_mass_g` mediumtext DEFAULT NULL,
  `sex` mediumtext DEFAULT NULL,
  `species` mediumtext DEFAULT NULL,
  `surplus` mediumtext DEFAULT NULL,
  PRIMARY KEY (`batch_id`,`row_no`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `penguins_raw` VALUES (1, 0, 'Biscoe', '45.5', '15.2', '211', '4700', 'female', 'Gentoo', NULL);

INSERT INTO `penguins_raw` VALUES (1, 1, 'Torgersen', '39.1', '18.7', '181', '3750', 'male', 'Adelie', NULL);

INSERT INTO `penguins_raw` VALUES (1, 2, 'Dream', 'NA', 'NA', 'NA', 'NA', 'NA', 'Adelie', NULL);

CREATE TABLE `predictions` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `request_id` varchar(64) NOT NULL,
  `at` datetime(6) NOT NULL,
  `use_case` varchar(64) NOT NULL,
  `model` varchar(128) NOT NULL,
  `version` int(11) NOT NULL,
  `rows` int(11) NOT NULL,
  `asked` text NOT NULL,
  `answered` text NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `predictions` VALUES (1, 'r1', '2026-11-24 22:30:16.147304', 'covertype', 'modelo_covertype_vf', 3, 1, '{"Slope": 3}', '2');

INSERT INTO `predictions` VALUES (2, 'r2', '2026-11-24 22:30:16.147307', 'penguins', 'penguins_species', 1, 7, 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', '{"0": 7}');

CREATE TABLE `projections` (
  `model` varchar(128) NOT NULL,
  `sequence` int(11) NOT NULL,
  PRIMARY KEY (`model`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `projections` VALUES ('modelo_covertype_vf', 2);

CREATE TABLE `promotion_notes` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `model` varchar(128) NOT NULL,
  `sequence` int(11) NOT NULL,
  `at` datetime(6) NOT NULL,
  `text` text NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `promotion_notes` VALUES (1, 'modelo_covertype_vf', 2, '2026-11-24 22:30:16.142146', 'the alias production was moved to version 9 outside dosel and is put back: no');

CREATE TABLE `promotions` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `model` varchar(128) NOT NULL,
  `sequence` int(11) NOT NULL,
  `from_version` int(11) DEFAULT NULL,
  `to_version` int(11) NOT NULL,
  `at` datetime(6) NOT NULL,
  `actor` varchar(255) NOT NULL,
  `reason` text NOT NULL,
  `kind` varchar(16) DEFAULT NULL,
  `to_run` varchar(64) DEFAULT NULL,
  `data_digest` varchar(64) DEFAULT NULL,
  `manifest_digest` varchar(64) DEFAULT NULL,
  `metrics_before` mediumtext DEFAULT NULL,
  `metrics_after` mediumtext DEFAULT NULL,
  `gate` mediumtext DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `model` (`model`,`sequence`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `promotions` VALUES (1, 'modelo_covertype_vf', 1, NULL, 1, '2026-11-24 22:30:16.030509', 'covertype_train', 'nothing was in Production', 'gate', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '{}', '{"accuracy": 0.71}', '{"passed": true, "rules": []}');

INSERT INTO `promotions` VALUES (2, 'modelo_covertype_vf', 2, 1, 3, '2026-11-24 22:30:16.050418', 'command line, ñandú', 'better; it''s "quoted"', 'manual', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '{}', '{}', NULL);

INSERT INTO `promotions` VALUES (3, 'penguins_species', 1, NULL, 1, '2026-11-24 22:30:16.118101', 'penguins_train', 'first', 'gate', 'cccccccccccccccccccccccccccccccc', NULL, NULL, '{}', '{}', NULL);

CREATE TABLE `writers` (
  `use_case` varchar(64) NOT NULL,
  PRIMARY KEY (`use_case`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT INTO `writers` VALUES ('penguins');
