# Two commands on a fresh machine (Python 3.11+ and make): `make demo` and `make test`.
# Each does all its own set-up in .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
SOURCES := $(shell find fedsim hetero_profiles -type f -not -name '*.pyc') pyproject.toml README.md

.PHONY: demo test check format lint types notebooks docs portable rooms cover slow bench dev clean

demo: .venv/.wheel            ## the main job on the embedded default, offline
	$(BIN)/fedsim demo

test: .venv/.dev .venv/.wheel ## the default suite, against the built wheel, and the notebooks
	FEDSIM_TEST_WHEEL=1 PYTHONSAFEPATH=1 $(BIN)/pytest -n 2 --dist loadfile
	$(MAKE) notebooks

notebooks: build/notebooks/.done ## every notebook with its outputs: build/notebooks; executed once, for tests and site

check: .venv/.dev format lint types test docs ## what CI runs

format: .venv/.dev
	$(BIN)/ruff format --check .

lint: .venv/.dev
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/mypy

docs: .venv/.docs .venv/.wheel build/notebooks/.done ## the documentation site: build/site/index.html; a warning is an error
	PYTHONSAFEPATH=1 $(BIN)/python scripts/documentation.py

portable: .venv/.dev .venv/.wheel ## the default suite as other processors compute, 20 minutes
	FEDSIM_TEST_WHEEL=1 PYTHONSAFEPATH=1 $(BIN)/python scripts/portable.py

rooms: .venv/bin/python        ## writes the table of rooms into DESIGN.md and fedsim/__init__.py
	$(BIN)/python tests/worlds/rooms.py

cover: .venv/.dev .venv/.wheel ## lines of fedsim that the default suite runs, with a floor (pyproject.toml), 8 minutes
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term

slow: .venv/.dev .venv/.wheel ## the tests that take minutes
	$(BIN)/pytest -m slow --timeout 1800
	FEDSIM_CASES=many $(BIN)/pytest -n 2 --dist loadfile -m "hypothesis and not slow"

bench: .venv/.dev             ## the measurements of benchmarks/README.md, nearly three hours on a quiet machine
	$(BIN)/python -m benchmarks

dev: .venv/.dev               ## an editable install, for work on fedsim itself
	rm -f .venv/.wheel
	$(PIP) install -q --no-deps -e .

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedsim needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/.runtime: .venv/bin/python constraints.txt pyproject.toml
	$(BIN)/python scripts/requirements.py > .venv/runtime.txt
	$(PIP) install -q -c constraints.txt -r .venv/runtime.txt
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python scripts/requirements.py dev > .venv/dev.txt
	$(PIP) install -q -c constraints.txt -r .venv/dev.txt
	touch $@

.venv/.docs: .venv/.dev
	$(BIN)/python scripts/requirements.py docs > .venv/docs.txt
	$(PIP) install -q -c constraints.txt -r .venv/docs.txt
	touch $@

.venv/.wheel: .venv/.runtime $(SOURCES)
	rm -rf .venv/dist
	$(PIP) wheel -q --no-deps -w .venv/dist .
	$(PIP) install -q --no-deps --force-reinstall .venv/dist/*.whl
	touch $@

build/notebooks/.done: .venv/.dev .venv/.wheel $(NOTEBOOKS)
	rm -rf build/notebooks && mkdir -p build/notebooks && cp $(NOTEBOOKS) build/notebooks
	PLOTLY_RENDERER=plotly_mimetype $(BIN)/pytest --nbmake --overwrite --nbmake-timeout 600 --timeout 900 --durations=0 -n 2 -p no:cacheprovider -m "" build/notebooks/*.ipynb
	touch $@

clean:
	rm -rf .venv benchmarks/.venvs benchmarks/.cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
