# The two commands a new user needs are `make run` and `make test`; both set up everything else.
PYTHON ?= python3
BIN := .venv/bin
# Most of a test with Ray is waiting: three at a time on two cores.
PYTEST := $(BIN)/pytest --dist worksteal
READY := .venv/.ready

.PHONY: run test check audit bench server docs clean

run: $(READY)  ## the quickstart sweep: permuted digits, about a minute
	$(BIN)/supsup sweep sweeps/quickstart.yaml

test: check  ## all that CI runs
	$(PYTEST) -n 3 tests --ignore=tests/supsup_core

check: $(READY)  ## the fast part: style, types, layers, the science's tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@$(BIN)/python -c "import urllib.request as u; u.urlopen('https://pypi.org/pypi/pip/json', timeout=5)" 2>/dev/null \
	  && reached=yes || reached=no; \
	if [ $$reached = yes ]; then $(MAKE) --no-print-directory audit; else echo "no audit: PyPI cannot be reached"; fi
	$(PYTEST) -n 2 tests/supsup_core

audit: $(READY)  ## known vulnerabilities of all that is pinned
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

bench: $(READY)  ## speed and memory against peers, in minutes; `.venv/bin/python -m bench --help` for the long ones
	$(BIN)/python -m bench

server: $(READY)  ## MLflow for many, over PostgreSQL and with passwords, in server/
	$(BIN)/supsup server

docs: $(READY)  ## the documentation as pages, in site/
	$(BIN)/mkdocs build --strict

clean:  ## everything that can be made again; not runs/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q orchestrator supsup_core
	touch $@
