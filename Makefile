# make demo   the whole of fedstep on this machine, in about a minute
# make test   the tests
# Both make the virtual environment first, and install into it.

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
PYTEST = $(BIN)/pytest --numprocesses auto --dist worksteal
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint generate bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/fedstep demo

test: $(VENV)/.installed-dev
	$(PYTEST)

test-all: $(VENV)/.installed-dev
	$(PYTEST) -m 'not docker'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint proto

generate: $(VENV)/.installed-dev
	PATH="$(abspath $(BIN)):$$PATH" proto/generate.sh
	$(BIN)/python proto/reference.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) dist build fedstep-runs .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fedstep needs Python 3.11 or later, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "No virtual environment could be made: apt install python3-venv, then again."; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing fedstep into $(VENV) (torch is large; the first time takes a few minutes)"
	$(PIP) --editable '.[client,server]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV)"
	$(PIP) --editable '.[dev]'
	@touch $@
