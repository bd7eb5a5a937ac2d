# Every target sets itself up: a virtual environment in $(VENV), made once, and again when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/ready
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
LOWEST := $(VENV)/lowest
# Tests use one thread each, and keep compiled modules even where that is turned off: they start many Python processes.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: demo test test-slow test-lowest check bench bench-steps bench-latency results docs images clean

demo: $(READY)  ## teach one small student three ways on the built-in scenes and compare
	$(BIN)/ladle demo

test: $(READY)  ## the tests, on two cores, without the network
	$(TESTS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(READY)  ## the tests that take long, such as exporting every family; .ci/run runs both
	$(TESTS) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-lowest: $(LOWEST)/ready  ## all tests, slow ones too, with the oldest PyTorch that pyproject.toml allows
	$(TESTS) $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal

check: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(PEERS)/ready  ## speed of the assigners beside their peers, in one run; BENCH="--quick" for a first look
	$(PEERS)/bin/python benchmarks/assigners.py $(BENCH)

bench-steps: $(PEERS)/ready  ## speed of training steps: of LAD beside its parts and mmdetection's, of two families beside torchvision's
	$(PEERS)/bin/python benchmarks/step.py
	$(PEERS)/bin/python benchmarks/throughput.py

bench-latency: $(PEERS)/ready  ## latency of small detectors as ONNX files, beside torchvision's and Ultralytics'
	$(PEERS)/bin/python benchmarks/latency.py

results: $(READY)  ## the tables and charts of docs/results.md, from the recorded results
	$(BIN)/python benchmarks/results.py

docs: $(VENV)/docs-ready  ## the documentation and the reference as a site, in build/site; a warning is an error
	PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 mkdocs build --strict

images: $(READY)  ## the images of the documentation
	$(BIN)/python docs/make_images.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# OpenVINO is not made for every machine, and only one test file needs it.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: openvino || \
		echo "openvino cannot be installed here: its tests are skipped"
	touch $(READY)

$(VENV)/docs-ready: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $(VENV)/docs-ready

$(LOWEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	@# "torch>=2.6" becomes "torch==2.6.*", and so does torchvision's.
	sed -n 's/^    "\(torch[a-z]*\)>=\([0-9.]*\).*/\1==\2.*/p' pyproject.toml > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $(LOWEST)/ready

$(PEERS)/ready: pyproject.toml benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --editable '.[onnx]' -r benchmarks/peers/requirements.txt
	@# YOLOX does not name what its build needs, which is torch, setuptools and wheel: it is built beside them.
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation yolox==0.3.0
	touch $(PEERS)/ready
