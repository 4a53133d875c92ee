# Everything here works from a fresh clone: the first target that needs it makes .venv and installs the tested set.
#   make demo            make test            make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_BENCH := $(VENV)/.installed-bench
ALONE := tests/conformance tests/faults tests/examples/test_demo.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench golden clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt

demo: $(INSTALLED) ## Faces: make, train, encode on a local Ray, fit, edit, render; ends with a report to look at
	@echo "== Running the demo into out/demo"
	@$(BIN)/latentmill demo

test: $(INSTALLED) ## Run every test, the slow and the process-killing ones too
	@echo "== Running the tests, two at a time"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(ALONE))
	@echo "== Running those that start Ray or want the whole machine, one after another"
	@$(BIN)/python -m pytest $(ALONE)

check: $(INSTALLED) ## Lint, formatting, strict types
	@echo "== ruff check" && $(BIN)/ruff check .
	@echo "== ruff format --check" && $(BIN)/ruff format --check .
	@echo "== mypy --strict" && $(BIN)/mypy

format: $(INSTALLED) ## Rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(INSTALLED_BENCH) ## Run all benchmarks; each checks its answers and writes benchmarks/results/
	@echo "== Running the benchmarks"
	@$(BIN)/python -m benchmarks

golden: $(INSTALLED) ## Renew golden files and generated docs after a change that was meant; review the diff
	@$(BIN)/python -m pytest --quiet --update-golden -m "not slow and not fault"

clean: ## Remove out/ and caches; .venv stays
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Latentmill needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "== Making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== Installing the versions of constraints.txt (minutes the first time, nothing afterwards)"
	@$(PIP) -e ".[dev,s3]"
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	@echo "== Installing what only the benchmarks need"
	@$(PIP) -e ".[bench]"
	@touch $@
