# make demo and make test do all the set-up; both are safe to repeat.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PROJECT = pyproject.toml setup.cfg requirements.txt

.PHONY: demo test soak lint benchmark clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.demo --workdir=runs/demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.soak --workdir=runs/soak

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: $(VENV)/.installed
	$(BIN)/python -m experiments.benchmark --quick

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] + ': set PYTHON=') if sys.version_info < (3, 11) else 0"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs
