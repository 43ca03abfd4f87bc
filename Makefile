# Everything lives in .venv; nothing else on the machine is changed.

SHELL := /bin/sh
BIN := .venv/bin
DEMO_ONCE ?=
export DEMO_ONCE

.PHONY: help test lint docs dist test-dist demo simulate torture hostile faults bench bench-large screenshots clean

help:
	@echo "make test         install the tools into .venv, and run all tests"
	@echo "make demo         run two servers and flip them (DEMO_ONCE=1: run once and exit)"
	@echo "make lint         run ruff, mypy, the import rules and the checks of the workflows"
	@echo "make docs         build the documentation as a site in build/docs"
	@echo "make dist         build the sdist, and the wheel from the sdist"
	@echo "make test-dist    install that wheel, and run the tests of that sdist over it"
	@echo "make simulate     run the protocol in simulated time, 10,000 times"
	@echo "make torture      run 1,000 flips over real processes"
	@echo "make hostile      try 1,000,000 hostile paths on both adapters"
	@echo "make faults       cause every fault of the table and 1,000 outages, and write the table"
	@echo "make bench        measure what the library costs"
	@echo "make bench-large  measure fleets of up to 10,000 processes, which takes many minutes"
	@echo "make screenshots  take the images of the documentation again"
	@echo "make clean        remove everything that was built"

# The first Python that is new enough. Each stamp is made again when pyproject.toml changes.
.venv/created:
	@rm -rf .venv; \
	for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "creating .venv with $$("$$python" --version)"; \
	  "$$python" -m venv .venv && touch $@ && exit 0; \
	  echo "error: $$python cannot create a virtual environment: install its venv module (Debian: apt install python3-venv)" >&2; \
	  rm -rf .venv; exit 1; \
	done; \
	echo "error: no Python 3.11 or newer found as python3, python3.14, python3.13, python3.12 or python3.11" >&2; exit 1

# Dependency groups need pip 25.1.
.venv/standard: .venv/created pyproject.toml
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable ".[standard]"
	@touch $@

.venv/dev: .venv/standard
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --pedantic --strict-collection .github .pre-commit-config.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

PYTEST := pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

test: lint
	$(BIN)/$(PYTEST) --cov --cov-report=term

docs: .venv/dev
	rm -rf build/docs build/doctrees
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

dist: .venv/dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# As a packager does it. The tests import the installed wheel, and nothing of this checkout but dist/ is used.
test-dist: dist
	rm -rf build/sdist && mkdir -p build/sdist
	tar -xzf dist/*.tar.gz -C build/sdist --strip-components=1
	$(BIN)/python -m venv build/sdist/.venv
	build/sdist/$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	cd build/sdist && $(BIN)/python -m pip install --quiet "$$(ls $(CURDIR)/dist/*.whl)[standard]" --group test
	cd build/sdist && $(BIN)/$(PYTEST) tests

demo: .venv/standard
	@$(BIN)/maintenance demo

simulate: .venv/dev
	$(BIN)/python -m tests.simulation

torture: .venv/dev
	$(BIN)/python -m tests.torture

hostile: .venv/dev
	$(BIN)/python -m tests.hostile

faults: .venv/dev
	$(BIN)/python -m tests.faults

# Apart from the tests: what needs these packages is only a comparison.
.venv/bench: .venv/dev
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@

bench: .venv/bench
	$(BIN)/python -m benchmarks

bench-large: .venv/dev
	$(BIN)/python -m benchmarks ten_thousand draw

screenshots: .venv/dev
	$(BIN)/python docs/images/screenshots.py
	$(BIN)/python docs/images/recording.py

clean:
	rm -rf .venv build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
