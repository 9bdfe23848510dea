# groundup: `make` says what there is. Works with GNU make 3.81 and newer.

VENV := .venv
BIN := $(VENV)/bin
# Tests in parallel; torch in each must not fight the others for the cores.
WORKERS := auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --maxprocesses 4

.PHONY: help quickstart test test-interop check format docs bench-pretrain bench-collect bench-finetune clean

help:
	@echo "make quickstart    set up $(VENV), then build a small language model (recipes/quickstart.toml)"
	@echo "make test          the tests (without those that need heavy peers or a GPU)"
	@echo "make test-interop  the tests that need heavy peers"
	@echo "make check         linter, formatting, types, floors, file sizes"
	@echo "make format        format the code"
	@echo "make docs          the documentation as a site, in site/, to be read without a network"
	@echo "make bench-pretrain  training speed and quality beside nanoGPT and others (benchmarks/README.md)"
	@echo "make bench-collect  collecting beside datatrove: speed, extraction, duplicates, memory, privacy"
	@echo "make bench-finetune  LoRA beside TRL: speed, memory; what each recipe gains"
	@echo "make clean         remove $(VENV) and caches; runs/ stays"
	@echo
	@echo "Set up with another Python: make PYTHON=python3.12 ...; another package index: make TORCH_INDEX=URL ..."

export PYTHON TORCH_INDEX

$(VENV)/.base: pyproject.toml
	@tools/setup.sh $(VENV) "" $@
$(VENV)/.dev: pyproject.toml
	@tools/setup.sh $(VENV) "[dev]" $@
$(VENV)/.interop: pyproject.toml
	@tools/setup.sh $(VENV) "[dev,interop]" $@

$(VENV)/.docs: pyproject.toml
	@tools/setup.sh $(VENV) "[docs]" $@

$(VENV)/.bench: pyproject.toml
	@tools/setup.sh $(VENV) "[dev,bench]" $@

quickstart: $(VENV)/.base
	@$(BIN)/groundup run recipes/quickstart.toml

test: $(VENV)/.dev
	$(PYTEST) -m "not interop and not gpu"

test-interop: $(VENV)/.interop
	$(PYTEST) -m interop

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@find src tests -name '*.py' | xargs wc -l \
	    | awk '$$2 != "total" && $$1 > 400 {print $$2 ": " $$1 " lines, the house stops at 400"; bad = 1} END {exit bad}'

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The pages: $(CURDIR)/site/index.html"

# Fetches no peer: NANOGPT=DIR NANOCHAT=DIR LITGPT=DIR say where they are. TOKENS=DIR: text for quality and start.
export NANOGPT NANOCHAT LITGPT TOKENS
bench-pretrain: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.pretrain $(ARGS)

# PAGES=DIR, ARTICLES=DIR: HTML pages; DATATROVE=PYTHON: one that has datatrove; TEXT=DIR: text for near-duplicates.
export PAGES ARTICLES DATATROVE TEXT
bench-collect: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.collect $(ARGS)

# MODEL=DIR: a model with a chat template; EXAMPLES=FILE: a table of conversations; TABLES="NAME=FILE ...": for recipes.
export MODEL EXAMPLES TABLES
bench-finetune: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.finetune $(ARGS)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
