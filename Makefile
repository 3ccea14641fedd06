# Each target makes .venv first when it is missing or older than pyproject.toml and the lock files.
# `make` alone prints the targets.

PYTHON ?= python3.11
EXTRA  ?= cpu
ARGS   ?=

UV_VERSION  := 0.13.8
TORCH_INDEX := https://download.pytorch.org/whl/cpu
PLATFORM    := $(shell uname -s | tr A-Z a-z)-$(shell uname -m)

BIN   := .venv/bin
LOCK  := requirements/$(EXTRA)-$(PLATFORM).txt
TORCH := $(wildcard requirements/torch-$(EXTRA).txt)
STAMP := .venv/.installed-$(EXTRA)
CODE  := research_env learners agents benchmarks tests

# uv uses the certificates that the machine trusts, as pip and git do; UV_SYSTEM_CERTS=0 makes it use its own.
export UV_SYSTEM_CERTS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# vLLM and Ray report usage to their makers unless told otherwise.
export VLLM_NO_USAGE_STATS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: help install train test lint format check lock clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  options       ARGS='…' for the command, EXTRA=gpu for an NVIDIA GPU, PYTHON=/path/to/python3.11"

train: $(STAMP)  ## train a policy by GRPO: make train ARGS="--preset tiny-cpu"
	@$(BIN)/python -m learners.grpo $(ARGS)

test: $(STAMP)  ## run the tests: make test ARGS="-k bm25"
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	@echo "ruff check" && $(BIN)/ruff check $(CODE)
	@echo "ruff format --check" && $(BIN)/ruff format --check $(CODE)
	@echo "mypy" && $(BIN)/mypy

check: lint test  ## lint, then test

format: $(STAMP)  ## fix what ruff can fix
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

install: $(STAMP)  ## make .venv and nothing more

# torch first and alone, so that Linux takes the CPU build; then the lock, which is complete, so nothing is resolved.
# The stamp is written last: the next make resumes an install that stopped half-way.
$(STAMP): pyproject.toml $(LOCK) $(TORCH)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo >&2 \
	  "make: '$(PYTHON)' is not Python 3.11; install it (apt install python3.11-venv, brew install python@3.11, uv python install 3.11) or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@rm -f .venv/.installed-*
	@echo "[1/4] .venv ($$($(PYTHON) --version))"
	@if [ "$$(cat .venv/.extra 2>/dev/null || echo $(EXTRA))" = "$(EXTRA)" ]; \
	  then $(PYTHON) -m venv .venv; else $(PYTHON) -m venv --clear .venv; fi
	@echo $(EXTRA) > .venv/.extra
	@$(BIN)/python -m pip install -q --no-deps uv==$(UV_VERSION)
ifneq ($(TORCH),)
	@echo "[2/4] $$(grep '^torch' $(TORCH)), CPU build"
	@$(BIN)/python -m pip install -q --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) -r $(TORCH)
else
	@echo "[2/4] torch comes with the lock"
endif
	@echo "[3/4] $(LOCK): $$(grep -c '==' $(LOCK)) packages"
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps -r $(LOCK) || { \
	  echo "      uv could not; trying pip, which is slower"; $(BIN)/python -m pip install -q --no-deps -r $(LOCK); }
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo >&2 \
	  "make: torch cannot be imported; for EXTRA=cpu this is most likely a CUDA build, because $(TORCH_INDEX) could not be reached: run 'make clean' and try again where it can"; exit 1; }
	@echo "[4/4] research-gym, editable"
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --editable .
	@touch $@

requirements/%.txt:
	@test -e $@ || { echo "make: no lock file $@ for this machine; there are: $(basename $(notdir $(wildcard requirements/*-*-*.txt)))" >&2; exit 1; }

# Keeps the versions in the lock files where pyproject.toml allows them; `make lock ARGS=--upgrade` takes the newest.
# A lock file is complete and for one platform, hash-free, wheels only; the CPU ones are resolved without torch.
COMPILE = $(BIN)/uv pip compile -q --python-version 3.11 --only-binary :all: --no-annotate \
  --custom-compile-command 'make lock' --extra data --extra dense --extra elasticsearch --extra serve --extra dev $(ARGS) pyproject.toml
CPU     = --extra cpu requirements/cpu.in --excludes requirements/excludes-cpu.in

lock:  ## remake the lock files from pyproject.toml
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q --no-deps uv==$(UV_VERSION); }
	$(COMPILE) $(CPU) --python-platform x86_64-manylinux_2_34 -o requirements/cpu-linux-x86_64.txt
	$(COMPILE) $(CPU) --python-platform aarch64-manylinux_2_34 -o requirements/cpu-linux-aarch64.txt
	MACOSX_DEPLOYMENT_TARGET=14.0 $(COMPILE) $(CPU) --python-platform aarch64-apple-darwin -o requirements/cpu-darwin-arm64.txt
	$(COMPILE) --extra gpu --python-platform x86_64-manylinux_2_34 -o requirements/gpu-linux-x86_64.txt

clean:  ## remove .venv and caches, never data or runs
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
