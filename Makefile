# make demo    a tour of the whole product on loopback
# make test    format, lint, types, import rules, tests, and tests against other programs
# make lint    the first four of those
# make conformance   est-client conformance at our own server; reports in build/conformance
# make interop the last of those, and docs/reference/interop.md made anew
# make bench   measure what enrollment costs, and write docs/reference/performance.md (a long time)
# make bench-quick   a minute's worth of it, to see that it runs
# make clean   remove what the others made

SHELL := /bin/bash
.DEFAULT_GOAL := test
.PHONY: demo test conformance interop lint bench bench-quick clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REPORTS := build/conformance

demo: $(INSTALLED)
	@$(BIN)/python docs/examples/demo.py

test: lint
	EST_CONFORMANCE_REPORTS=$(REPORTS) $(BIN)/python -m pytest --numprocesses auto tests interop

conformance: $(INSTALLED)
	EST_CONFORMANCE_REPORTS=$(REPORTS) $(BIN)/python -m pytest tests/behaviour/test_conformance_runner.py
	@cat $(REPORTS)/https-birth-certificate.txt $(REPORTS)/coaps-birth-certificate.txt

interop: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto interop --record
	$(BIN)/python -m docs.generate
	@cat docs/reference/interop.md

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m tests.benchmarks --page docs

bench-quick: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks --quick

$(INSTALLED): pyproject.toml
	@python=; for candidate in python3.13 python3.12 python3.11 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "make: Python 3.11 or later is needed, and there is none on the PATH" >&2; exit 1; fi; \
	echo "Installing into $(VENV) with $$($$python --version) ..."; \
	$$python -m venv $(VENV) || { \
	  echo "make: no virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
