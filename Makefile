# Everything runs in .venv, which `make env` makes once and again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made-by-make
SOURCES := src tests benchmarks docs

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo test lint format type bench profile docs-results docs-figure wheel clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

env: $(STAMP) ## Make the environment in .venv

# Groups of pyproject.toml need pip 25.1, which is newer than the pip that Python 3.11 brings.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "longtail needs Python 3.11 or newer, $(PYTHON) is `$(PYTHON) --version`; try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable . --group test --group lint --group build
	@touch $@

demo: env ## Compare five methods on handwritten digits, three seeds each (under two minutes)
	$(BIN)/longtail compare digits --methods ce,ldam+drw,bsce,crt,tau-norm --seeds 3 --out demo

test: env ## Run the tests: two processes, one torch thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not extras'

lint: env ## Check style
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: env ## Put the code into style
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

type: env ## Check types
	$(BIN)/mypy

bench: env ## Measure images per second against the plain loop and the bare step (idle machine)
	$(BIN)/python benchmarks/throughput.py --compile

profile: env ## Show where the time of an epoch goes
	$(BIN)/python benchmarks/profile_epoch.py

docs-results: env ## Generate docs/results.md from results/
	$(BIN)/python -m longtail.benchmark.results results docs/results.md README.md

docs-figure: env ## Draw the README's picture from the runs of `make demo`
	$(BIN)/python docs/digits_demo.py demo docs/digits-demo.png

wheel: env ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist

clean: ## Remove the environment and everything generated (runs/ and .data/ stay)
	rm -rf $(VENV) dist build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
