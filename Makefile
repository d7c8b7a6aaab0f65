# A new user needs only `make run` and `make test`. Both commands first create .venv and install all packages.
PYTHON ?= python3
BIN := .venv/bin
# Tests with Ray mostly wait, so three pytest workers are efficient on two cores.
PYTEST := $(BIN)/pytest --dist worksteal
READY := .venv/.ready

.PHONY: run test check audit bench server docs clean

run: $(READY)  ## run the quickstart sweep: permuted digits, about a minute
	$(BIN)/supsup sweep sweeps/quickstart.yaml

test: check  ## run everything that CI runs
	$(PYTEST) -n 3 tests --ignore=tests/supsup_core

check: $(READY)  ## run the fast checks: style, types, imports between packages, tests of supsup_core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@$(BIN)/python -c "import urllib.request as u; u.urlopen('https://pypi.org/pypi/pip/json', timeout=5)" 2>/dev/null \
	  && reached=yes || reached=no; \
	if [ $$reached = yes ]; then $(MAKE) --no-print-directory audit; else echo "no audit: PyPI cannot be reached"; fi
	$(PYTEST) -n 2 tests/supsup_core

audit: $(READY)  ## list known vulnerabilities of the pinned packages
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

bench: $(READY)  ## compare speed and memory with peers; takes minutes
	$(BIN)/python -m bench

server: $(READY)  ## run an MLflow server for a team, with PostgreSQL and passwords, in server/
	$(BIN)/supsup server

docs: $(READY)  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## delete everything that other targets create again; keeps runs/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q orchestrator supsup_core
	touch $@
