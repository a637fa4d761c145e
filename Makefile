# `make demo` and `make test` do all the set-up there is: a virtual environment with pinned versions, made once and renewed when
# pyproject.toml or constraints.txt change. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt

.PHONY: help demo test lint clean

help:
	@echo "make demo   install, then train and fuse three tiny specialists: ultrafuser demo"
	@echo "make test   install with what developers need, then all checks and tests"
	@echo "make lint   the checks alone"
	@echo "make clean  remove the environment and caches"

demo: $(VENV)/.installed
	$(BIN)/ultrafuser demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# torch alone and first: so pip takes the build that suits the machine, also a local CPU build of the same version.
$(VENV)/.installed: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "$(PYTHON) is older than 3.10: make .. PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
