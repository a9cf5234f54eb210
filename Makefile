# Every target works as the first command on a machine that has Python 3.11 or newer, make and a C compiler.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

# The first interpreter that is new enough; `make PYTHON=/path/to/python serve` overrides it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)

BUILD_INPUTS := pyproject.toml constraints.txt setup.py $(wildcard serve/kernels/*.c serve/kernels/*.h)

.PHONY: help setup serve test acceptance check format docs bench clean

help: ## Show this list.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Create .venv and install tunechat with its pinned dependencies.

$(STAMP): $(BUILD_INPUTS)
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11 or newer on PATH; install one, or set PYTHON=/path/to/python" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $(STAMP)

serve: $(STAMP) ## Fetch the default model, if it is not here yet, and serve it. ARGS="--port 9000" adds flags.
	@exec $(BIN)/tunechat serve $(ARGS)

# Two at a time, a file each: many tests wait for processes more than they compute.
test: $(STAMP) ## Run the tests, without the long ones. ARGS="-n 0 -x tests/tools" chooses.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not acceptance" $(ARGS)

acceptance: $(STAMP) ## Run the long checks and keep their table in docs/acceptance.md.
	$(BIN)/python -m pytest -m acceptance --table=docs/acceptance.md tests $(ARGS)

# The folder of a checkout may have a name that is no package's; mypy sees it through a link that has the right one.
check: $(STAMP) ## Lint, formatting, types, and the rules about layout and imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .mypy_cache/package && ln -sfn ../.. .mypy_cache/package/tunechat
	MYPYPATH=.mypy_cache/package $(BIN)/mypy --package tunechat.serve --package tunechat.tools --package tunechat.trainer
	$(BIN)/python -m pytest --quiet tests/test_imports.py tests/test_layout.py tests/test_docs.py

format: $(STAMP) ## Let ruff rewrite the files.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Rewrite the parts of docs/ that the source determines.
	$(BIN)/python docs/update.py

bench: $(STAMP) ## Measure speed and quality and put the tables into docs/performance.md.
	$(BIN)/python benchmarks/serving.py --out docs/performance.md
	$(BIN)/python benchmarks/adapters.py --out docs/performance.md
	$(BIN)/python benchmarks/structured.py --out docs/performance.md
	$(BIN)/python benchmarks/quality.py --out docs/performance.md

clean: ## Remove .venv and everything that was built. Models and state under TUNECHAT_HOME stay.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f serve/kernels/*.so
