# make help says what there is to do.
.DEFAULT_GOAL := help
.SHELLFLAGS := -ec
MAKEFLAGS += --no-print-directory

# The newest Python that will do; PYTHON=… names another. A shim that answers to a name may still not run.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$name; break; fi; done)
DOSEL := .venv/bin/dosel

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: setup ## the main job: start everything, show the pipeline at work (DETACH=1 returns when a model answers)
	@$(DOSEL) up $(if $(filter-out 0,$(DETACH)),--detach)

.PHONY: status
status: setup ## is each service well, what is in Production
	@$(DOSEL) status

.PHONY: logs
logs: setup ## follow the logs (SERVICE=… for one)
	@$(DOSEL) logs $(if $(SERVICE),"$(SERVICE)")

.PHONY: down
down: ## end everything that make up started
	@if [ -x $(DOSEL) ]; then $(DOSEL) down; else echo "nothing was running"; fi

.PHONY: clean
clean: down ## end everything and forget all data, models and logs (.venv stays)
	@if [ -x $(DOSEL) ]; then $(DOSEL) forget; fi
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache test-output

.PHONY: distclean
distclean: clean ## also remove .venv and the package cache
	@rm -rf .venv .cache

.PHONY: test
test: setup ## all tests
	@MLFLOW_DISABLE_TELEMETRY=true MPLCONFIGDIR="$(CURDIR)/.cache/matplotlib" .venv/bin/python -m pytest

.PHONY: bench-ingest
bench-ingest: setup ## how fast batches enter the warehouse, beside the usual ways (needs mariadbd)
	@.venv/bin/python -m benchmarks.ingest

.PHONY: soak-ingest
soak-ingest: setup ## kill -9 worker, data API and database 200 times while batches are stored (needs mariadbd)
	@.venv/bin/python -m benchmarks.soak_ingest

.PHONY: lint
lint: setup ## style, types, import rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy src/dosel app external ui
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python scripts/readme.py --check

.PHONY: secrets
secrets: setup ## write .env.secrets: new passwords and keys for the platform in Compose
	@$(DOSEL) compose secrets

.PHONY: docs
docs: setup ## write the parts of README.md that follow from the code
	@.venv/bin/python scripts/readme.py

.PHONY: lock
lock: setup ## write the locks anew from pyproject.toml
	@.venv/bin/python scripts/lock.py

.PHONY: setup
setup:
	@if [ -z "$(PYTHON)" ]; then echo "dosel: Python 3.11, 3.12 or 3.13 is needed and none was found" >&2; exit 1; fi
	@$(PYTHON) scripts/bootstrap.py
