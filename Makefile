# One command per need. `make help` lists them. Needs GNU make and Python 3.11 or newer, and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
BIN := .venv/bin
UV := uv==0.13.9  # only for make lock
# With compiled modules kept, also where the environment says not to: else each of a hundred processes compiles them again.
QUICK_PYTHON := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
CHECKED := manage.py botos_project identity sessions_app adapters tests

# What a production machine would set; nothing of this machine gets in.
DEPLOY := env -i PATH="$$PATH" HOME="$$HOME" BOTOS_ENV_FILE= BOTOS_PUBLIC_URL=https://bots.example.org \
	SECRET_KEY=$$($(BIN)/python -c "import secrets; print(secrets.token_urlsafe(50))")

.PHONY: help run test check static slow bench faults mutants clients audit lock

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

run: .venv/.installed ## Start BotOS with the playground and the pages
	@$(BIN)/python -m botos_project.dotenv
	@$(BIN)/python manage.py bootstrap
	@exec $(BIN)/python manage.py runbots --playground --web

test: .venv/.installed-dev ## Run the tests
	@$(QUICK_PYTHON) -m pytest $(PARALLEL) $(PYTEST_ARGS)

check: static test ## Lint, types, import rules, migrations, deployment checks, then the tests

static: .venv/.installed-dev ## All of that but the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py makemigrations --check --dry-run
	$(DEPLOY) $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/pip check

bench: .venv/.installed-dev ## Measure
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

slow: .venv/.installed-dev ## Try at random, many times, what the tests try a few times
	@$(QUICK_PYTHON) -m pytest $(PARALLEL) -m slow $(PYTEST_ARGS)

faults: .venv/.installed-dev ## Kill, stall and flood it, and count what was lost
	@$(BIN)/python -m pytest -m faults $(PYTEST_ARGS)
	@$(BIN)/python -m tests.mutation

mutants: .venv/.installed-dev ## Change the pairing code at random and see whether a test notices
	@$(BIN)/python -m tests.mutation

clients: .venv/.installed-dev .clients/.installed ## Let bots of other libraries talk to the local servers (needs npm)
	@$(QUICK_PYTHON) -m pytest -m clients tests/clients $(PYTEST_ARGS)

audit: .venv/.installed-dev ## Look for known holes in what is pinned
	@.ci/audit

lock: ## Resolve the requirements and pin all of them by hash, for every platform
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(PYTHON) -m venv "$$fresh"; "$$fresh/bin/pip" install --quiet $(UV); \
	for name in requirements requirements-dev; do "$$fresh/bin/uv" pip compile --quiet --no-config --universal \
	--python-version 3.11 --generate-hashes --custom-compile-command "make lock" $$name.txt --output-file $$name.lock; done

# Installed again only when what is asked for has changed.
.venv/.installed: requirements.lock | .venv/bin/pip
	@echo "Installing what BotOS needs ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

.venv/.installed-dev: requirements-dev.lock | .venv/bin/pip
	@echo "Installing what BotOS and its tests need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@touch $@ .venv/.installed

# Apart from .venv, because these libraries are used by no part of BotOS.
.clients/.installed: tests/clients/requirements.txt tests/clients/package.json
	@$(PYTHON) -m venv .clients/python
	@.clients/python/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	@cp tests/clients/package.json .clients/ && npm install --silent --no-audit --no-fund --prefix .clients
	@touch $@

.venv/bin/pip:
	@command -v "$(PYTHON)" > /dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer, or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "BotOS needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1); say make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv
