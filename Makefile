# Every target creates .venv when it is absent. PYTHON=/path/to/python chooses the interpreter, otherwise the first of
# python3.11, python3.12 and python3.13 that runs is taken. Where uv is on the path, it installs, in less time; pip does
# where uv fails, or is not wanted: make UV=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV := $(shell command -v uv)
install = $(if $(UV),$(UV) pip install --python $(BIN)/python $(OPTIONS) $(1) || )$(PIP) install $(OPTIONS) $(1)
OPTIONS := --quiet --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
# Installed again when the requirements change: `core` runs the program, `dev` also tests it.
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev

.PHONY: help quickstart test testall testlowest check bench golden clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)$$/  make \1|\2/' | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

quickstart: $(CORE) ## train and sample a small three-stage cascade on this machine, in minutes
	$(BIN)/cdllm quickstart

test: $(DEV) ## run the tests, on all cores; needs no network
	$(PYTEST) -m "not slow"

testall: $(DEV) ## run all tests, also those that take long: clusters, many processes, a compiler
	$(PYTEST)

testlowest: ## run the tests with the oldest libraries that pyproject.toml admits, in .venv-lowest; needs uv
	$(MAKE) VENV=.venv-lowest .venv-lowest/bin/python
	uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	$(subst $(VENV),.venv-lowest,$(PYTEST)) -m "not slow"

check: $(DEV) ## style, types, docstrings, spelling and import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python -m pytest -q tests/repo/test_layers.py tests/repo/test_docstrings.py

bench: $(DEV) ## time the training step, the sampler and the building of stages against plain references
	$(BIN)/python benchmarks/bench_train_step.py
	$(BIN)/python benchmarks/bench_copy_head.py
	$(BIN)/python benchmarks/bench_sampler.py
	$(BIN)/python benchmarks/bench_stages.py

golden: $(DEV) ## rewrite the stored list of commands and flags after an intended change; say why in CHANGELOG.md
	$(BIN)/python -m tests.repo.cli_surface

clean: ## delete .venv, caches and builds; keeps data and runs
	rm -rf $(VENV) .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# A name on the PATH may be a shim that does not run, so each candidate is tried.
$(BIN)/python:
	@for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	      2>/dev/null; then \
	    echo "Creating $(VENV) with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11 to 3.13 with venv among: $(or $(PYTHON),python3.11 python3.12 python3.13 python3)." \
	  "Install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

# torch first, by its pin alone and by pip, see constraints.txt: whoever has told pip of a build without CUDA gets that
# one. hatchling is there because the builds are not isolated, so that they use the pinned one.
$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install $(OPTIONS) "$$(grep '^torch==' constraints.txt)"
	$(call install,hatchling)
	$(call install,--no-build-isolation --editable .)
	@touch $@

$(DEV): $(CORE)
	$(call install,--no-build-isolation --editable '.[dev]')
	@touch $@
