# Two commands matter: `make demo` runs the main job, `make test` passes the tests. Both make the environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test bench lint types env clean

env: $(STAMP)

# torch goes in first and alone, so that no other package chooses its version or its build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $(STAMP)

demo: env
	$(BIN)/snflow fit digits_conv --out runs/demo --compare exact

test: env
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# The short form; --full measures every row, and the peers where they are installed.
bench: env
	$(BIN)/python benchmarks/bench.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
