# pratique: `make help` lists what can be made.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := ocispec scanner policy registry runtime pratique
CODE := $(PACKAGES) policies tests benchmarks

# Tests start hundreds of processes: where byte code is not to be written, each would compile all of our code again.
unexport PYTHONDONTWRITEBYTECODE

# A checkout needs no network but for the packages that the lock file pins by hash.
PIP := $(BIN)/pip --disable-pip-version-check --quiet install
# Each lock file is complete, so nothing is resolved: a resolver may prefer a version that appeared after the lock.
LOCKED = $(PIP) --no-deps --require-hashes --requirement
INSTALL = $(PIP) --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.runtime: requirements.lock pyproject.toml
	@scripts/install-packages
	@echo "Making $(VENV) from requirements.lock"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(LOCKED) requirements.lock
	@$(INSTALL)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Adding what checks and tests need from requirements-dev.lock"
	@$(LOCKED) requirements-dev.lock
	@touch $@

.PHONY: venv
venv: $(VENV)/.dev ## make .venv with everything that checks, tests and benchmarks import

.PHONY: demo
demo: ## run the whole chain, from push to revocation; leaves nothing running [STORAGE=s3: on an S3 server]
	@scripts/install-packages demo
	@$(MAKE) --no-print-directory $(VENV)/$(if $(filter s3,$(STORAGE)),.dev,.runtime)
	@STORAGE=$(STORAGE) $(BIN)/python -m demo

.PHONY: check
check: $(VENV)/.dev ## formatting, lint, types, and the import contract
	$(BIN)/ruff format --check $(CODE) demo
	$(BIN)/ruff check $(CODE) demo
	$(BIN)/mypy
	$(BIN)/lint-imports

# Coverage costs three quarters of a test's time again: it is measured where a bound holds, by the tests that are for that.
BOUND := ocispec policy
# What fails is run once more, alone: FLAKY at the end names what passed then.
RUN_TESTS = $(BIN)/python scripts/run-tests
RUN = $(RUN_TESTS) -m "not data and not image" --dist loadgroup

.PHONY: test
test: ## install what tests need, and run them all; ocispec/ and policy/ with coverage
	@scripts/install-packages test
	@$(MAKE) --no-print-directory $(VENV)/.dev
ifdef PYTEST
	$(RUN) --numprocesses 4 $(PYTEST)
else
	$(RUN) --numprocesses 3 $(BOUND:%=--cov=%) --cov-report= $(BOUND:%=tests/%)
	@for package in $(BOUND); do \
		$(BIN)/coverage report --include="$$package/*" --fail-under=95 --format=total | sed "s/$$/ % of $$package\/ covered, lines and branches/" \
		|| { echo "make test: coverage of $$package/ is below 95 %" >&2; exit 1; }; \
	done
	$(RUN) --numprocesses 6 $(BOUND:%=--ignore=tests/%) tests
endif

.PHONY: test-whole
test-whole: export PRATIQUE_TURN := all
test-whole: test ## as test, with all of the large grids of which that tries a seventh a day

.PHONY: coverage
coverage: $(VENV)/.dev ## all tests with coverage of all packages, which takes twice as long
	@scripts/install-packages test
	$(RUN) --numprocesses 4 --cov --cov-report= $(PYTEST)
	@$(BIN)/coverage report --skip-covered

.PHONY: test-data
test-data: $(VENV)/.dev ## tests on large real records: make test-data DATA=FOLDER
	@test -d "$(DATA)" || { echo "make test-data: DATA=$(DATA) is no folder; expected DATA=FOLDER" >&2; exit 2; }
	PRATIQUE_DATA=$(abspath $(DATA)) $(RUN_TESTS) -m data $(PYTEST)

.PHONY: test-image
test-image: ## build the container image on Debian, run it, and let it judge an image (minutes)
	@scripts/install-packages test
	@$(MAKE) --no-print-directory $(VENV)/.dev
	$(BIN)/python -m pytest -m image tests/image $(PYTEST)

.PHONY: image
image: ## the container image: make image BASE=debian:13-slim@sha256:DIGEST [TAG=NAME]
	@test -n "$(BASE)" || { echo "make image: BASE= is empty; expected a Debian 13 image with its digest" >&2; exit 2; }
	buildah build --file deploy/Containerfile --tag $(or $(TAG),pratique-registry) --build-arg BASE=$(BASE) .

.PHONY: conformance
conformance: ## the OCI conformance suite: make conformance SUITE=BINARY [PEER=1: on docker-registry too]
	@test -f "$(SUITE)" || { echo "make conformance: SUITE=$(SUITE) is no file; docs/conformance.md says how it is built" >&2; exit 2; }
	@scripts/install-packages $(if $(PEER),bench)
	@$(MAKE) --no-print-directory $(VENV)/.dev
	@$(BIN)/python -m tests.conformance "$(SUITE)" $(if $(PEER),--peer)

.PHONY: bench
bench: ## benchmarks beside the peers: medians, ratios, CPU
	@scripts/install-packages bench
	@$(MAKE) --no-print-directory $(VENV)/.dev
	$(BIN)/python -m benchmarks

.PHONY: format
format: $(VENV)/.dev ## format the code and mend what lint can mend
	$(BIN)/ruff format $(CODE) demo
	$(BIN)/ruff check --fix $(CODE) demo

.PHONY: clean
clean: ## remove the venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info .coverage*
