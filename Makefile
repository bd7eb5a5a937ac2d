# Every target sets itself up: a virtual environment in $(VENV), made once, and again when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/ready
BIN := $(VENV)/bin

.PHONY: demo test check bench docs clean

demo: $(READY)  ## teach one small student three ways on the built-in scenes and compare
	$(BIN)/ladle demo

test: $(READY)  ## all tests, on two cores, without the network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## speed, beside the installed peers, in one run
	$(BIN)/python benchmarks/assigners.py

docs: $(READY)  ## the pictures of the documentation
	$(BIN)/python docs/make_pictures.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)
