-- A data store of the last version without migrations: its own DDL, as the server returned it, and a few rows.

CREATE TABLE batches (
  id INTEGER NOT NULL,
  use_case VARCHAR(64) NOT NULL,
  stream VARCHAR(64) NOT NULL,
  epoch VARCHAR(64) NOT NULL,
  number INTEGER NOT NULL,
  source VARCHAR(255) NOT NULL,
  received_at DATETIME NOT NULL,
  rows_received INTEGER NOT NULL,
  rows_clean INTEGER NOT NULL,
  rows_refused INTEGER NOT NULL,
  rows_duplicate INTEGER NOT NULL,
  digest VARCHAR(64) NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (use_case, stream, epoch, number)
);

INSERT INTO batches VALUES (1, 'penguins', 'table', 'f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2', 1, 'package palmerpenguins: data/penguins.csv', '2026-11-24 22:30:12.411786', 3, 2, 1, 0, 'bd9557e4f644531ac96c2d08be4b10a5002262dc70c9c1c3112a7fbde24e35d9');

CREATE TABLE writers (
  use_case VARCHAR(64) NOT NULL,
  PRIMARY KEY (use_case)
);

INSERT INTO writers VALUES ('penguins');

CREATE TABLE penguins_raw (
  batch_id INTEGER NOT NULL,
  row_no INTEGER NOT NULL,
  island TEXT,
  bill_length_mm TEXT,
  bill_depth_mm TEXT,
  flipper_length_mm TEXT,
  body_mass_g TEXT,
  sex TEXT,
  species TEXT,
  surplus TEXT,
  PRIMARY KEY (batch_id, row_no)
);

INSERT INTO penguins_raw VALUES (1, 0, 'Biscoe', '45.5', '15.2', '211', '4700', 'female', 'Gentoo', NULL);

INSERT INTO penguins_raw VALUES (1, 1, 'Torgersen', '39.1', '18.7', '181', '3750', 'male', 'Adelie', NULL);

INSERT INTO penguins_raw VALUES (1, 2, 'Dream', 'NA', 'NA', 'NA', 'NA', 'NA', 'Adelie', NULL);

CREATE TABLE penguins_clean (
  batch_id INTEGER NOT NULL,
  row_no INTEGER NOT NULL,
  row_key BIGINT NOT NULL,
  island VARCHAR(64) NOT NULL,
  bill_length_mm DOUBLE NOT NULL,
  bill_depth_mm DOUBLE NOT NULL,
  flipper_length_mm INTEGER NOT NULL,
  body_mass_g INTEGER NOT NULL,
  sex VARCHAR(64) NOT NULL,
  species INTEGER NOT NULL,
  PRIMARY KEY (batch_id, row_no),
  UNIQUE (row_key)
);

INSERT INTO penguins_clean VALUES (1, 0, -3506545544297716848, 'Biscoe', 45.5, 15.2, 211, 4700, 'female', 2);

INSERT INTO penguins_clean VALUES (1, 1, 7710124250307335058, 'Torgersen', 39.1, 18.7, 181, 3750, 'male', 0);

CREATE TABLE penguins_quarantine (
  batch_id INTEGER NOT NULL,
  row_no INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (batch_id, row_no)
);

INSERT INTO penguins_quarantine VALUES (1, 2, 'bill_length_mm: a number from 25 to 70 mm expected, got ''NA''; bill_depth_mm: a number from 10 to 25 mm expected, got ''NA''; flipper_length_mm: a whole number from 150 to 250 mm expected, got ''NA''; body_mass_g: a whole number from 2000 to 8000 g expected, got ''NA''; sex: one of female, male expected, got ''NA''');

CREATE TABLE promotions (
  id INTEGER NOT NULL,
  model VARCHAR(128) NOT NULL,
  sequence INTEGER NOT NULL,
  from_version INTEGER,
  to_version INTEGER NOT NULL,
  at DATETIME NOT NULL,
  actor VARCHAR(255) NOT NULL,
  reason TEXT NOT NULL,
  kind VARCHAR(16),
  to_run VARCHAR(64),
  data_digest VARCHAR(64),
  manifest_digest VARCHAR(64),
  metrics_before TEXT,
  metrics_after TEXT,
  gate TEXT,
  PRIMARY KEY (id),
  UNIQUE (model, sequence)
);

INSERT INTO promotions VALUES (1, 'modelo_covertype_vf', 1, NULL, 1, '2026-11-24 22:30:12.446126', 'covertype_train', 'nothing was in Production', 'gate', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '{}', '{"accuracy": 0.71}', '{"passed": true, "rules": []}');

INSERT INTO promotions VALUES (2, 'modelo_covertype_vf', 2, 1, 3, '2026-11-24 22:30:12.450491', 'command line, ñandú', 'better; it''s "quoted"', 'manual', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '{}', '{}', NULL);

INSERT INTO promotions VALUES (3, 'penguins_species', 1, NULL, 1, '2026-11-24 22:30:12.457713', 'penguins_train', 'first', 'gate', 'cccccccccccccccccccccccccccccccc', NULL, NULL, '{}', '{}', NULL);

CREATE TABLE projections (
  model VARCHAR(128) NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (model)
);

INSERT INTO projections VALUES ('modelo_covertype_vf', 2);

CREATE TABLE manifests (
  id INTEGER NOT NULL,
  model VARCHAR(128) NOT NULL,
  version INTEGER NOT NULL,
  run_id VARCHAR(64) NOT NULL,
  at DATETIME NOT NULL,
  digest VARCHAR(64) NOT NULL,
  files TEXT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (model, version, run_id)
);

INSERT INTO manifests VALUES (1, 'modelo_covertype_vf', 1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '2026-11-24 22:30:12.462307', '8366f472c1159203df28992ef6b8c19097a673271096c837b5421d61d1308e23', '{"MLmodel": "1111111111111111111111111111111111111111111111111111111111111111", "model.skops": "0000000000000000000000000000000000000000000000000000000000000000"}');

CREATE TABLE promotion_notes (
  id INTEGER NOT NULL,
  model VARCHAR(128) NOT NULL,
  sequence INTEGER NOT NULL,
  at DATETIME NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (id)
);

INSERT INTO promotion_notes VALUES (1, 'modelo_covertype_vf', 2, '2026-11-24 22:30:12.473104', 'the alias production was moved to version 9 outside dosel and is put back: no');

CREATE TABLE predictions (
  id INTEGER NOT NULL,
  request_id VARCHAR(64) NOT NULL,
  at DATETIME NOT NULL,
  use_case VARCHAR(64) NOT NULL,
  model VARCHAR(128) NOT NULL,
  version INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  asked TEXT NOT NULL,
  answered TEXT NOT NULL,
  PRIMARY KEY (id)
);

INSERT INTO predictions VALUES (1, 'r1', '2026-11-24 22:30:12.481313', 'covertype', 'modelo_covertype_vf', 3, 1, '{"Slope": 3}', '2');

INSERT INTO predictions VALUES (2, 'r2', '2026-11-24 22:30:12.481317', 'penguins', 'penguins_species', 1, 7, 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', '{"0": 7}');
