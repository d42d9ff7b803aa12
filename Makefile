# make demo and make test do all the set-up; both are safe to repeat.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PROJECT = pyproject.toml setup.cfg requirements.txt

# Of tests: a file is one worker's, and files are begun in the order of tests/conftest.py.
WORKERS = --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# For gpu-results: a Python with this project's packages and JAX for the GPU; minutes for the tables;
# a folder that experiments.packing has packed, where CIFAR is not on the machine.
GPU_PYTHON ?= $(BIN)/python
GPU_MINUTES ?= 25
PACKED ?=
CIFAR = experiments/configs/cifar_lt.py

.PHONY: demo demo-images test test-fast soak lint docs benchmark gpu-results clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.demo --workdir=runs/demo

demo-images: $(VENV)/.installed-images
	$(BIN)/python -m experiments.demo --data=image_folder --workdir=runs/demo_images

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(WORKERS)

test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.soak --workdir=runs/soak

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# build/docs/index.html; a warning is an error.
docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

benchmark: $(VENV)/.installed
	$(BIN)/python -m experiments.benchmark --quick

# What is recorded is skipped and what is begun goes on: it may be repeated.
gpu-results: export JAX_COMPILATION_CACHE_DIR ?= runs/compiled
ifneq ($(PACKED),)
gpu-results: export TFDS_DATA_DIR := runs/unpacked
endif
gpu-results:
	$(if $(PACKED),test -d runs/unpacked || $(GPU_PYTHON) -m experiments.packing --packed=$(PACKED))
	$(GPU_PYTHON) -m experiments.reproduce all --minutes=$(GPU_MINUTES)
	$(GPU_PYTHON) -m experiments.report
	$(GPU_PYTHON) -m experiments.benchmark --only=step,epoch,seeds,precision --out=runs/benchmark_gpu.json
	$(GPU_PYTHON) -m experiments.tracing --config=$(CIFAR):recipe=otrw_paper --workdir=runs/trace

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] + ': set PYTHON=') if sys.version_info < (3, 11) else 0"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments]"
	touch $@

$(VENV)/.installed-images: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments,efficientnet]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-test: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build runs
