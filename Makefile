# `make help` lists the commands.
.DEFAULT_GOAL := help
.SHELLFLAGS := -ec
MAKEFLAGS += --no-print-directory

# The newest supported Python; PYTHON=… names another. Each one is run, since a shim on the PATH may not work.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$name; break; fi; done)
DOSEL := .venv/bin/dosel
# NO_MKDOCS_2_WARNING hides a notice that each build would print; with --quiet, --strict would not report broken links.
MKDOCS := NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# LightGBM looks for the system's OpenMP runtime; setup links scikit-learn's there, for systems that have none.
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib/openmp$(addprefix :,$(LD_LIBRARY_PATH))

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: setup ## start everything and show the progress (DETACH=1 returns when each use case answers)
	@$(DOSEL) up $(if $(filter-out 0,$(DETACH)),--detach)

.PHONY: drill
drill: setup ## run the platform on data that go bad: harm, message, retraining, recovery (SHADOW=1: with a shadow)
	@$(DOSEL) drill $(if $(SHADOW),--shadow)

.PHONY: status
status: setup ## show each service's state and the versions in Production
	@$(DOSEL) status

.PHONY: logs
logs: setup ## follow the logs (SERVICE=… for one)
	@$(DOSEL) logs $(if $(SERVICE),"$(SERVICE)")

.PHONY: down
down: ## stop everything that make up started
	@if [ -x $(DOSEL) ]; then $(DOSEL) down; else echo "nothing was running"; fi

.PHONY: services
services: setup ## start a MySQL or MariaDB and a MinIO to use instead of files (DETACH=1 returns at once)
	@$(DOSEL) services $(if $(filter-out 0,$(DETACH)),--detach)

.PHONY: services-down
services-down: ## stop what make services started; its data stays
	@if [ -x $(DOSEL) ]; then $(DOSEL) services-down; fi

.PHONY: clean
clean: down ## stop everything and delete all data, models and logs (.venv stays)
	@if [ -x $(DOSEL) ]; then $(DOSEL) forget; fi
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis .import_linter_cache test-output

.PHONY: distclean
distclean: clean ## also remove .venv and the package cache
	@rm -rf .venv .cache

# Several workers already fill the cores: further threads of OpenMP would spin, which costs a sixth of the time.
PYTEST := MLFLOW_DISABLE_TELEMETRY=true OMP_NUM_THREADS=1 MPLCONFIGDIR="$(CURDIR)/.cache/matplotlib" \
	.venv/bin/python -m pytest
PARALLEL := --numprocesses $(or $(WORKERS),auto) --dist loadscope --no-loadscope-reorder

.PHONY: test
test: setup ## the tests, on several workers (WORKERS=… sets the number); make soak-all runs those that take long
	@$(PYTEST) $(PARALLEL)

.PHONY: soak-all
soak-all: setup ## run what make test omits: soaks, kills, more cases of long tests, more on MySQL and MinIO
	@$(PYTEST) -m soak $(PARALLEL)

.PHONY: e2e
e2e: setup ## test the platform in Docker, killing each service during a run (root, half an hour)
	@$(PYTEST) -m compose --log-cli-level INFO --timeout 3600 tests/e2e/test_compose.py

.PHONY: soak-registry
soak-registry: setup ## test the registry: 20 processes promote at once, 200 are killed between steps
	@.venv/bin/python -m tests.soak.registry $(if $(SHARE),--share $(SHARE)) \
		$(if $(WAREHOUSE_URL),--warehouse-url "$(WAREHOUSE_URL)")

.PHONY: bench-all
bench-all: setup ## run every benchmark and write docs/figures.md (ONLY="serving cli" for some, BEFORE=folder; some hours)
	@.venv/bin/python -m benchmarks.all $(ONLY) $(if $(BEFORE),--before "$(BEFORE)")

.PHONY: bench-cli
bench-cli: setup ## measure commands that only read the ledgers (two minutes)
	@.venv/bin/python -m benchmarks.cli

.PHONY: bench-ingest
bench-ingest: setup ## measure the ingest, side by side with the usual ways (needs mariadbd)
	@.venv/bin/python -m benchmarks.ingest

.PHONY: soak-ingest
soak-ingest: setup ## test the ingest: kill -9 worker, data API and database 200 times (needs mariadbd)
	@.venv/bin/python -m tests.soak.ingest

.PHONY: soak-monitor
soak-monitor: setup ## test scoring, feedback and messages: killed 200 times, nothing lost or counted twice (KILLS=…)
	@.venv/bin/python -m tests.soak.monitor $(if $(KILLS),--kills $(KILLS))

.PHONY: bench-trust
bench-trust: setup ## tamper with the ledgers in random ways, and time their verification (TAMPERINGS=…)
	@.venv/bin/python -m benchmarks.trust $(if $(TAMPERINGS),--tamperings $(TAMPERINGS))

.PHONY: bench-shadow
bench-shadow: setup ## measure decisions on shadows, and what they cost (PARTS="decisions canary serving rollback soak")
	@.venv/bin/python -m benchmarks.shadow $(PARTS) $(if $(STREAMS),--streams $(STREAMS))

.PHONY: soak-shadow
soak-shadow: setup ## test shadows: started, promoted, stopped, rolled back and killed under load (OPERATIONS=…, KILLS=…)
	@.venv/bin/python -m tests.soak.shadow $(if $(OPERATIONS),--operations $(OPERATIONS)) $(if $(KILLS),--kills $(KILLS))

.PHONY: lint
lint: setup ## style, types, import rules, declarations, links and generated parts of the documentation
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy src app external ui dags scripts benchmarks tests
	@.venv/bin/lint-imports --no-cache
	@$(DOSEL) check
	@.venv/bin/python scripts/generated_docs.py --check
	@$(MKDOCS) --site-dir .cache/site

.PHONY: secrets
secrets: setup ## write .secrets and .env.secrets: new passwords and keys for the platform in Compose
	@$(DOSEL) compose secrets

.PHONY: backup
backup: setup ## copy the volumes of the stopped platform in Compose to a folder (TO=…)
	@$(DOSEL) compose backup "$(or $(TO),$(error name a folder: make backup TO=…))"

.PHONY: restore
restore: setup ## create the volumes again from a backup (FROM=…)
	@$(DOSEL) compose restore "$(or $(FROM),$(error name a folder: make restore FROM=…))"

.PHONY: bench-serving
bench-serving: setup ## measure the API, side by side with others (needs wrk; about ten minutes)
	@.venv/bin/python -m benchmarks.serving $(PARTS) $(if $(BEFORE),--before "$(BEFORE)")

.PHONY: bench-training
bench-training: setup ## measure tracked and bare searches on growing numbers of rows (CSV=…, SIZES=…; an hour)
	@.venv/bin/python -m benchmarks.training $(if $(CSV),--csv "$(CSV)") \
		$(if $(filter-out undefined,$(origin SIZES)),--sizes $(SIZES))

.PHONY: bench-cluster
bench-cluster: setup ## measure trainings on a Dask cluster, side by side with threads (PARTS="scores tasks compared large", SIZES=…, ROWS=…)
	@.venv/bin/python -m benchmarks.cluster $(PARTS) $(if $(SIZES),--sizes $(SIZES)) $(if $(ROWS),--rows $(ROWS))

.PHONY: soak-cluster
soak-cluster: setup ## test trainings on a cluster: worker, all workers, scheduler or driver killed 50 times (KILLS=…)
	@.venv/bin/python -m tests.soak.cluster $(if $(KILLS),--kills $(KILLS))

.PHONY: bench-monitor
bench-monitor: setup ## measure the harm test, the estimate without labels, the log and feedback (STREAMS=…, PARTS=…)
	@.venv/bin/python -m benchmarks.monitor $(PARTS) $(if $(STREAMS),--streams $(STREAMS)) \
		$(if $(BEFORE),--before "$(BEFORE)")

.PHONY: bench-explain
bench-explain: setup ## measure explanations by number of training rows and model (CSV=… for your own rows)
	@.venv/bin/python -m benchmarks.explain $(if $(CSV),--csv "$(CSV)")

.PHONY: soak-serving
soak-serving: setup ## test the API while Production changes a thousand times (SWAPS=… sets the number)
	@.venv/bin/python -m tests.soak.serving $(SWAPS)

.PHONY: outage
outage: setup ## test the API while MLflow, MinIO and MariaDB stop and return (needs mariadbd and minio)
	@.venv/bin/python -m tests.soak.outage

.PHONY: fuzz
fuzz: setup ## test the API and the readers with 10,000 random requests (CASES=… sets the number)
	@.venv/bin/python -m tests.soak.fuzz $(CASES)

.PHONY: attack
attack: setup ## attack the API, and measure the effect on another client (a few minutes; CASES=… names some)
	@.venv/bin/python -m tests.attack $(CASES)

.PHONY: screenshots
screenshots: setup ## take pictures of every view of the page (test-output/views/), and README.md's three (docs/images/)
	@.venv/bin/python -m scripts.screenshots --readme

.PHONY: docs
docs: setup ## write the generated parts of README.md and docs/, then build the site in site/
	@.venv/bin/python scripts/generated_docs.py
	@$(MKDOCS) --site-dir site
	@echo "the site is in site/; .venv/bin/mkdocs serve shows it at http://127.0.0.1:8000"

.PHONY: lock
lock: setup ## write the lock files from pyproject.toml
	@.venv/bin/python scripts/lock.py

.PHONY: sbom
sbom: setup ## write the bill of materials of each image to sbom/, from its lock
	@.venv/bin/python -m scripts.sbom

.PHONY: setup
setup:
	@if [ -z "$(PYTHON)" ]; then echo "dosel: Python 3.11, 3.12 or 3.13 is needed and none was found" >&2; exit 1; fi
	@$(PYTHON) scripts/setup_venv.py
