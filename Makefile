# Two commands matter: `make demo` runs the main job, `make test` passes the tests. Both make the environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-foreign test-nightly test-oldest test-wheel bench lint types env clean

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

# The properties of other libraries' test suites, and those libraries beside ours, in an environment of their own that
# sees the packages of this one, so that torch is installed once.
FOREIGN := .venv-foreign
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

test-foreign: env
	$(PYTHON) -m venv $(FOREIGN)
	$(FOREIGN)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(FOREIGN)/bin/python -m pip install --quiet --no-deps --group foreign
	{ $(BIN)/python $(PURELIB); echo "$(CURDIR)/src"; } > "$$($(FOREIGN)/bin/python $(PURELIB))/main.pth"
	$(FOREIGN)/bin/python -m pytest tests/foreign --numprocesses 2 --dist worksteal

# Hours; stopped and started again, it goes on. ONLY=kills,fuzz chooses checks, SEED=123 runs one case, MINUTES=60 limits.
JOBS ?= 2
NIGHTLY = $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

test-nightly: env
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m nightly --jobs $(JOBS) $(NIGHTLY)

# The lower bounds of pyproject.toml, in an environment of their own; old packages warn of newer ones.
OLDEST := .venv-oldest

test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable . --group dev
	$(OLDEST)/bin/python -m pytest --numprocesses 2 --dist worksteal \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

# The wheel in an environment that has the dependencies of this one, but not the checkout; one epoch of the demo from it.
WHEEL := .venv-wheel

test-wheel: env
	rm -rf $(WHEEL) && mkdir -p $(WHEEL)/run
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL)/dist .
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --quiet --no-deps $(WHEEL)/dist/*.whl
	$(BIN)/python tests/nightly/wheel.py $(WHEEL)

# The short form; --full measures every row, and the peers where they are installed.
bench: env
	$(BIN)/python benchmarks/bench.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(FOREIGN) $(OLDEST) $(WHEEL) .mypy_cache .pytest_cache .ruff_cache
