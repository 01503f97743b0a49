# Every target but setup and clean calls setup first; setup does nothing when .venv is current.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.installed ## Make .venv from the locked dependencies

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Bentley needs Python 3.11, 3.12 or 3.13, and %s is %d.%d: run make PYTHON=python3.12" % (sys.executable, *v))'
	@echo "Making .venv from the locked packages: some minutes, 1.6 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: setup ## Start the pipeline and its pages, and stay up until Ctrl-C
	@$(BIN)/bentley run

.PHONY: test
test: setup ## Run the tests
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

.PHONY: bench
bench: setup ## Measure speed and memory, side by side with the usual ways
	$(BIN)/python benchmarks/run.py

.PHONY: lint
lint: setup ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: clean
clean: ## Remove .venv and caches; data under var/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +
