# serve · test · lint · bench · lock: each makes the environment it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
QUALITY_ARGS ?=

.PHONY: serve test lint bench lock clean

serve: .venv/.serve
	@exec $(BIN)/semcached serve

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python bench/quality.py $(QUALITY_ARGS)

.venv/.serve: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

.venv/.dev: requirements-dev.lock .venv/.serve
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

# Needs uv. Hashes, and no registry's name.
lock:
	uv pip compile -q pyproject.toml --extra local --extra embedded --group build --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements.lock
	uv pip compile -q pyproject.toml --extra local --extra embedded --group build --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--constraint requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache
