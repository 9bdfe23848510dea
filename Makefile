# `make` lists the targets. Requires GNU make 3.81 or newer.

# Each Python has its own environment: `make PYTHON=python3.13 test` uses .venv-python3.13.
VENV := .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Tests run in parallel, so each process uses one thread.
WORKERS := auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --maxprocesses 4

.PHONY: help quickstart test test-lowest test-interop check format lock docs bench-pretrain bench-small-text bench-collect bench-finetune bench-inference bench-applications bench-structure clean

help:
	@echo "make quickstart    set up $(VENV) and train a small language model (groundup run quickstart)"
	@echo "make test          run the tests, except interop and GPU tests"
	@echo "make test-lowest   run the tests with the lowest allowed dependency versions, in .venv-lowest"
	@echo "make test-interop  run the tests that need llama.cpp, TRL or a browser"
	@echo "make check         run the linters and the type checker"
	@echo "make format        format the code"
	@echo "make lock          update requirements.lock and requirements-dev.lock (ARGS=--upgrade: newest versions)"
	@echo "make docs          build the documentation in site/, for offline reading"
	@echo "make bench-pretrain  compare training speed and quality with nanoGPT and others (benchmarks/README.md)"
	@echo "make bench-small-text  compare training on small texts with an earlier planner and PPMd; check predictions"
	@echo "make bench-collect  compare corpus processing with datatrove; extraction, memory and privacy"
	@echo "make bench-finetune  compare LoRA with TRL: speed and memory; gains of the recipes"
	@echo "make bench-inference  compare inference speed and quality with llama.cpp; check that answers are reproducible"
	@echo "make bench-applications  measure the applications, and answers from documents on question sets"
	@echo "make bench-structure  measure the size of the code and the files that one training step executes"
	@echo "make clean         remove .venv, .venv-* and caches, but not runs/"
	@echo
	@echo "Variables: PYTHON=python3.12 (environment .venv-python3.12), LOCKED=1 (locked versions),"
	@echo "TORCH_INDEX=URL (additional package index)"

export PYTHON TORCH_INDEX LOCKED LOWEST
# LOCKED=1 has separate stamps, so it installs the locked versions into an existing environment.
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
	@echo
	@echo "This model shows the stages and is too small to be a tool. Next, train a useful classifier on SmolLM2 in minutes"
	@echo "(86.7 % accuracy on film reviews, TF-IDF 70.2 %; docs/comparing.md), and use it:"
	@echo "    $(BIN)/groundup run sentiment"
	@echo "    $(BIN)/groundup apps sentiment 'I would buy it again.' --model runs/sentiment"

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
	$(BIN)/python tools/prose.py

format: $(DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Universal lock files with hashes. Locked versions are kept unless ARGS=--upgrade.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --generate-hashes \
    --python-version 3.11 $(ARGS)
lock: $(BASE)
	@$(BIN)/python -m pip install --quiet "uv>=0.8"
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Documentation: $(CURDIR)/site/index.html"

# NANOGPT=DIR, NANOCHAT=DIR, LITGPT=DIR: checkouts of the other programs. TOKENS=DIR: token shards for quality and start.
export NANOGPT NANOCHAT LITGPT TOKENS
bench-pretrain: $(DEV)
	@$(BIN)/python -m benchmarks.pretrain $(ARGS)

# OLD=DIR: checkout of the earlier planner (default: a temporary worktree).
export OLD
bench-small-text: $(DEV)
	@$(BIN)/python -m benchmarks.small_text.compare $(ARGS)

# PAGES=DIR, ARTICLES=DIR: HTML pages. DATATROVE=PYTHON: a Python with datatrove. TEXT=DIR: text for near-duplicates.
export PAGES ARTICLES DATATROVE TEXT
bench-collect: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.collect $(ARGS)

# MODEL=DIR: a chat model. EXAMPLES=FILE: a table of conversations. TABLES="NAME=FILE ...": tables for the recipes.
export MODEL EXAMPLES TABLES
bench-finetune: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.finetune $(ARGS)

# MODEL=DIR: a model. GGUF=DIR: GGUF files of it. PEER: a Python with xllamacpp. TEXTS=FILE: held-out text.
export GGUF PEER TEXTS
bench-inference: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.inference $(ARGS)

# QUESTIONS="DIR ...": question sets. MODEL=DIR: a model that runs the applications and reads passages.
# ADAPTERS="NAME=DIR ...": adapters of applications. TESTS="NAME=FILE ...": their test files.
export QUESTIONS ADAPTERS TESTS
bench-applications: $(DEV)
	@$(BIN)/python -m benchmarks.applications $(ARGS)

bench-structure: $(DEV)
	@$(BIN)/python tools/structure.py bench

clean:
	rm -rf .venv .venv-* build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
