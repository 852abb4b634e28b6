# Everything a contributor types. `make help` lists it. Needs Python >= 3.11; no root, no C compiler (with one, it is faster).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
RUNS ?= 50000
SEEDS ?= 1000
START ?= 0
ARGS ?=
DIR ?= tests/conformance/raft
DRILLS ?= --all

# Stamps carry the content of their inputs and the place, so that a change of branch or of file times costs nothing and a copied
# tree does not run its original.
sum = $(shell (echo "$(CURDIR)"; cat $(1) 2>/dev/null) | cksum | cut -d' ' -f1)
DEPS_STAMP := .venv/.deps-$(call sum,requirements-dev.lock .ci/venv)
EDITABLE_STAMP := .venv/.editable-$(call sum,pyproject.toml hatch_build.py)
# Two `make setup` at once take turns.
ONE_AT_A_TIME := $(shell command -v flock >/dev/null 2>&1 && echo "flock .venv/.turn")

.PHONY: help setup proto demo test check conformance bench bench-scale fuzz soak faults faults-root drills drills-quick drills-root redproofs lock image clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: ## create .venv and generated code (instant when nothing changed)
	@mkdir -p .venv && $(ONE_AT_A_TIME) $(MAKE) .setup

.PHONY: .setup
.setup:
	@if [ ! -e $(DEPS_STAMP) ] || ! [ -x $(PY) ] || ! $(PY) -c 'import hatchling' 2>/dev/null; then \
	    .ci/venv; rm -f .venv/.deps-* .venv/.editable-*; touch $(DEPS_STAMP); fi
	@$(PY) hatch_build.py
	@if [ ! -e $(EDITABLE_STAMP) ]; then \
	    PATH="$$PWD/.venv/bin:$$PATH"; \
	    if $(PY) -m pip --version >/dev/null 2>&1; then $(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	    else uv pip install -q --python $(PY) --no-deps --no-build-isolation -e .; fi; \
	    rm -f .venv/.editable-*; touch $(EDITABLE_STAMP); fi

proto: setup ## compile proto/ to replica/v1 and hosting/v1

demo: setup ## the whole story: copy, kill, answer, return (ARGS="--json" and others pass through)
	@.venv/bin/zaibei demo $(ARGS)

test: setup ## all tests, two runs side by side (ARGS="tests/unit -k name" narrows, to one run)
	@$(if $(strip $(ARGS)),$(PY) -m pytest $(ARGS),.ci/tests)

check: setup ## style, types, import order, wire contract, dependencies
	@.ci/check

conformance: setup ## data-driven Raft files through the core (DIR=folder of such files)
	@$(PY) -m tests.conformance.run $(DIR) $(ARGS)

bench: setup ## the table of speeds, peers side by side where installed
	@$(PY) -m ops.bench $(ARGS)

bench-scale: setup ## how time, memory and disk grow with a source of 1, 10, 100 million records (ARGS="--sizes 1,10")
	@$(PY) -m ops.bench.scale $(ARGS)

fuzz: setup ## atheris over every decoder (RUNS=200000 for longer)
	@shopt -s nullglob; for harness in tests/fuzz/*_fuzz.py; do echo "fuzz: $$harness"; $(PY) "$$harness" -runs=$(RUNS) $(ARGS); done

soak: setup ## whole simulated clusters under faults, seed by seed (SEEDS=20000 START=0)
	@$(PY) -m tests.simulation.raft.soak --seeds $(SEEDS) --start $(START) $(ARGS)

faults: setup ## faults on real processes, links through our own proxies, no root (ARGS="--only 7 --keep DIR", or --long)
	@$(PY) -m tests.faults.run --evidence zaibei-data/drills $(ARGS)

faults-root: setup ## those that need root: power failure, dropped packets, memory limits
	@$(PY) -m tests.faults.run --root --evidence zaibei-data/drills $(ARGS)

drills: setup ## every scenario on a stage of its own, judged from outside, left as signed evidence (ARGS="--quick", DRILLS="s33-secondary-dies")
	@.venv/bin/zaibei drill run $(DRILLS) --yes $(ARGS)

drills-root: setup ## scenarios that need root: make faults-root under another name; it leaves signed evidence too
	@$(PY) -m tests.faults.run --root --evidence zaibei-data/drills $(ARGS)

drills-quick: setup ## the same in some ten minutes, for continuous integration: repeats a tenth, side by side where no time is measured
	@.venv/bin/zaibei drill run --all --yes --quick --beside 2 $(ARGS)

redproofs: setup ## each scenario with its planted bug: passed is who turns red; as root those that need it too
	@.ci/redproofs $(ARGS)

lock: ## pin every dependency again (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is needed once, for this target only (pip install uv)"; exit 1; }
	@uv pip compile -q pyproject.toml --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header $(ARGS) -o requirements.lock
	@uv pip compile -q pyproject.toml --group dev --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header $(ARGS) -o requirements-dev.lock

image: setup ## accept a change of the wire contract (needs a new record in ops/docs/decisions/)
	@.ci/image

clean: ## remove what builds and tests made, keep data
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build replica/v1 hosting/v1 replica/native/*.so replica/native/_native*.stamp
