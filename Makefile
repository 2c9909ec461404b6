# serve · test · lint · bench · lock: each makes the environment it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
QUALITY_ARGS ?=
ALONE := tests/faults tests/bench/test_faults.py tests/bench/test_crash.py

.PHONY: serve test lint bench lock clean

serve: .venv/.serve
	@exec $(BIN)/semcached serve

# Deadlines and crashes one at a time; everything else file by file on two cores.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix --ignore=,$(ALONE)) $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(ALONE) $(PYTEST_ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python -m bench.quality $(QUALITY_ARGS)

.venv/.serve: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e . -e client
	touch $@

.venv/.dev: requirements-dev.lock .venv/.serve
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

# Needs uv. Hashes, and no registry's name. The image's two locks: what runs in it, and what builds it.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-emit-package semcached
lock:
	$(LOCK) pyproject.toml --extra local --extra embedded --group build --output-file requirements.lock
	$(LOCK) pyproject.toml --extra local --extra embedded --group build --group dev \
		--constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --extra local --constraint requirements.lock --output-file requirements-image.lock
	$(LOCK) --group build --constraint requirements.lock --output-file requirements-image-build.lock
	$(LOCK) bench/peers/requirements.in --constraint requirements-dev.lock --no-annotate \
		--output-file bench/peers/requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache
