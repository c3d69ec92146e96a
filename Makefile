# The verbs of this repository; `make help` lists them. All of them run what `make setup` put into
# .venv/; those that need it set up by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
ORQESTRA := $(VENV)/bin/orqestra
PYTEST := $(PYTHON) -m pytest
# Most tests wait for processes: some files at once, each with services of its own. What bounds a time closely runs alone.
AT_ONCE := --numprocesses 3 --dist loadfile
COMPOSE := docker compose
# How long `make chaos-soak` goes on.
MINUTES := 10
# The interpreter that .venv is made of: `make setup PYTHON3=python3.13`.
PYTHON3 := python3

# Present and newer than all that the package is built from: nothing to set up.
READY := $(VENV)/.ready
SOURCES := pyproject.toml constraints.txt $(wildcard Cargo.toml Cargo.lock crates/*/Cargo.toml) \
	$(shell find crates -name '*.rs' -not -path '*/target/*' 2>/dev/null)

# What `make bench` and `make bench-full` do. Criterion measures the crate alone, in a folder that is made anew.
CRITERION := $(CURDIR)/.benchmarks/criterion
define measure
rm -rf $(CRITERION) && mkdir -p .benchmarks
$(PYTEST) benchmarks --benchmark-enable --benchmark-json=.benchmarks/raw.json $(1)
CRITERION_HOME=$(CRITERION) cargo bench --quiet --locked --bench matcher --bench outbox --bench backoff --bench wire -- --quick
$(PYTHON) -m tools.benchmark_results .benchmarks/raw.json $(CRITERION)
$(PYTHON) -m tools.benchmark_compare
$(PYTHON) -m tools.benchmark_tables
$(PYTHON) -m benchmarks.bars --render
endef

# The venv first, because pip looks for maturin on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup demo test test-unit test-integration test-property test-e2e test-chaos test-rust lint check \
	bench bench-full bench-peers bars chaos chaos-soak \
	proto docs server worker dev-server dev-worker migrate-up migrate-down migrate-version migrate-create \
	docker-up docker-down docker-logs docker-ps clean

help: ## List the verbs
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## Build the package and install it with all it needs into .venv/

$(READY): $(SOURCES)
	@command -v cargo > /dev/null || { echo "cargo is missing: install a Rust toolchain (rustup.rs)"; exit 1; }
	@$(PYTHON3) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt maturin
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation --editable '.[dev,embedded]'
	@touch $@
	@echo 'Ready: $(ORQESTRA) --help'

demo: setup ## Set up, run a small system in the terminal and watch it work
	$(PYTHON) -m tools.demo

test: setup test-rust ## Set up and run all tests
	$(PYTEST) tests/chaos
	$(PYTEST) --ignore=tests/chaos -m alone
	$(PYTEST) $(AT_ONCE) --ignore=tests/chaos -m 'not alone'

test-unit: setup ## Run the tests that need no service, and those of the house rules
	$(PYTEST) tests/unit tests/house

test-integration: setup ## Run the tests on a real Postgres and Redis
	$(PYTEST) tests/integration

test-property: setup ## Run the tests against oracles and state machines, and the model of the protocol
	$(PYTEST) tests/property tests/model

test-e2e: setup ## Run the tests with real processes
	$(PYTEST) tests/e2e

test-chaos: setup ## Run a part of the chaos matrix, and the tests of its checker
	$(PYTEST) tests/chaos

test-rust: ## Run the tests of the Rust crate; they need no Python
	cargo test --quiet --locked

lint: setup ## Check style, types, floors and stubs, without running anything
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) -m mypy.stubtest --concise orqestra._dispatch
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets -- -D warnings
	cargo clippy --quiet --locked --all-targets --features python -- -D warnings

check: lint test ## Do exactly what CI does

bench: setup ## Measure for minutes, keep the figures in benchmarks/results/, write the tables, compare the ratios
	$(call measure,--timeout=300)

bench-full: setup ## Measure that with larger loads too: some 6 minutes
	$(call measure,--timeout=1200 --full)

bench-peers: setup ## Measure beside other job queues in one run, about 7 minutes; PEERS="bullmq saq" for some of them
	$(PYTHON) -m benchmarks.peers $(if $(PEERS),$(addprefix --only ,$(PEERS)),--document)
	$(PYTHON) -m benchmarks.bars --render

bars: setup ## Measure what has to be reached, 3 rounds in about 12 minutes; BARS="shell delayed" for some, also: flat fleet
	$(PYTHON) -m benchmarks.bars $(BARS)

chaos: setup ## Run every cell of the chaos matrix and write docs/reliability.md; CELLS=text for some of them
	$(PYTHON) -m tests.chaos matrix --document --keep .chaos $(if $(CELLS),--only "$(CELLS)")

chaos-soak: setup ## Strike a cluster at random: make chaos-soak MINUTES=60; HEALTHY=1 strikes never
	$(PYTHON) -m tests.chaos soak --minutes $(MINUTES) --keep .chaos $(if $(HEALTHY),--healthy)

proto: setup ## Generate the Python code of proto/
	$(PYTHON) tools/proto.py

docs: setup ## Write the table of settings and .env.example
	$(PYTHON) tools/settings_docs.py

server: setup ## Run a server on your own Postgres and Redis
	$(ORQESTRA) server

worker: setup ## Run a worker
	$(ORQESTRA) worker

dev-server: setup ## Run a server that restarts when a file changes
	$(VENV)/bin/watchfiles --target-type command '$(ORQESTRA) server' python

dev-worker: setup ## Run a worker that restarts when a file changes
	$(VENV)/bin/watchfiles --target-type command '$(ORQESTRA) worker' python

migrate-up: setup ## Bring the database to the newest schema
	$(ORQESTRA) migrate up

migrate-down: setup ## Take back the last migration
	$(ORQESTRA) migrate down

migrate-version: setup ## Print the version of the database's schema
	$(ORQESTRA) migrate version

migrate-create: setup ## Begin a pair of migrations: make migrate-create NAME=add_something
	@test -n "$(NAME)" || { echo "usage: make migrate-create NAME=add_something"; exit 2; }
	$(ORQESTRA) migrate create "$(NAME)"

docker-up: setup ## Build and start everything in Docker, with passwords of its own
	$(PYTHON) tools/docker_secrets.py
	$(COMPOSE) up --build --detach --wait

docker-down: ## Stop what runs in Docker; the data stays
	$(COMPOSE) down

docker-logs: ## Follow the logs of what runs in Docker
	$(COMPOSE) logs --follow

docker-ps: ## List what runs in Docker
	$(COMPOSE) ps

clean: ## Remove all that was built, .venv/ too; data and .env stay
	rm -rf $(VENV) target dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find python tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/orqestra/_dispatch*.so
