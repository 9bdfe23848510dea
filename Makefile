# groundup: `make` says what there is. Works with GNU make 3.81 and newer.

# Another Python has an environment of its own: `make PYTHON=python3.13 test` leaves .venv alone.
VENV := .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Tests in parallel; torch in each must not fight the others for the cores.
WORKERS := auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --maxprocesses 4

.PHONY: help quickstart test test-lowest test-interop check format lock docs bench-pretrain bench-collect bench-finetune bench-structure clean

help:
	@echo "make quickstart    set up $(VENV), then build a small language model (groundup run quickstart)"
	@echo "make test          the tests (without those that need heavy peers or a GPU)"
	@echo "make test-lowest   the same tests with the lowest versions that pyproject.toml allows, in .venv-lowest"
	@echo "make test-interop  the tests that need heavy peers"
	@echo "make check         linter, formatting, types, layers, limits on functions, files and names"
	@echo "make format        format the code"
	@echo "make lock          write requirements.lock and requirements-dev.lock again (ARGS=--upgrade: newest versions)"
	@echo "make docs          the documentation as a site, in site/, to be read without a network"
	@echo "make bench-pretrain  training speed and quality beside nanoGPT and others (benchmarks/README.md)"
	@echo "make bench-collect  collecting beside datatrove: speed, extraction, duplicates, memory, privacy"
	@echo "make bench-finetune  LoRA beside TRL: speed, memory; what each recipe gains"
	@echo "make bench-structure  size of the code, and the files that one training step executes"
	@echo "make clean         remove .venv, .venv-* and caches; runs/ stays"
	@echo
	@echo "Set up with another Python: make PYTHON=python3.12 ... (in .venv-python3.12); with the locked versions:"
	@echo "make LOCKED=1 ...; with another package index: make TORCH_INDEX=URL ..."

export PYTHON TORCH_INDEX LOCKED LOWEST
# The locked versions have stamps of their own: LOCKED=1 installs them over whatever .venv holds.
BASE := $(VENV)/.base$(if $(LOCKED),-locked)
DEV := $(VENV)/.dev$(if $(LOCKED),-locked)

$(BASE): pyproject.toml $(if $(LOCKED),requirements.lock)
	@tools/setup.sh $(VENV) "" $@
$(DEV): pyproject.toml $(if $(LOCKED),requirements-dev.lock)
	@tools/setup.sh $(VENV) "[dev]" $@
$(VENV)/.interop: pyproject.toml
	@tools/setup.sh $(VENV) "[dev,interop]" $@

$(VENV)/.docs: pyproject.toml
	@tools/setup.sh $(VENV) "[docs]" $@

$(VENV)/.bench: pyproject.toml
	@tools/setup.sh $(VENV) "[dev,bench]" $@

quickstart: $(BASE)
	@$(BIN)/groundup run quickstart

test: $(DEV)
	$(PYTEST) -m "not interop and not gpu"

test-lowest:
	@$(MAKE) --no-print-directory VENV=.venv-lowest LOWEST=1 test

test-interop: $(VENV)/.interop
	$(PYTEST) -m interop

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/structure.py check

format: $(DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# For every Python and platform at once, with hashes; a version that is locked stays unless ARGS says --upgrade.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --generate-hashes \
    --python-version 3.11 $(ARGS)
lock: $(BASE)
	@$(BIN)/python -m pip install --quiet "uv>=0.8"
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The pages: $(CURDIR)/site/index.html"

# Fetches no peer: NANOGPT=DIR NANOCHAT=DIR LITGPT=DIR say where they are. TOKENS=DIR: text for quality and start.
export NANOGPT NANOCHAT LITGPT TOKENS
bench-pretrain: $(DEV)
	@$(BIN)/python -m benchmarks.pretrain $(ARGS)

# PAGES=DIR, ARTICLES=DIR: HTML pages; DATATROVE=PYTHON: one that has datatrove; TEXT=DIR: text for near-duplicates.
export PAGES ARTICLES DATATROVE TEXT
bench-collect: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.collect $(ARGS)

# MODEL=DIR: a model with a chat template; EXAMPLES=FILE: a table of conversations; TABLES="NAME=FILE ...": for recipes.
export MODEL EXAMPLES TABLES
bench-finetune: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.finetune $(ARGS)

bench-structure: $(DEV)
	@$(BIN)/python tools/structure.py bench

clean:
	rm -rf .venv .venv-* build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
