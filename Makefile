# cinelora: `make sweep` runs the main study, `make test` the tests; both set up all they need.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_FLAGS ?=            # extra pip flags for torch, e.g. an index of CPU builds
CACHE ?= .cache
STUDY ?= studies/quick
WORKERS ?= 2              # processes of `make base`
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export STUDY

.DEFAULT_GOAL := help
.PHONY: help setup fetch sweep plan status figures votes truncation dashboard wandb-sync check fmt test test-fast test-gpu base metrics-selftest bench chaos slurm-test clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: .venv/.runtime ## create .venv and install the versions of constraints.txt

.venv/.runtime: pyproject.toml constraints.txt
	@echo "setting up .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH_FLAGS) -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.runtime tests/peers.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -rf .venv/peers
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target .venv/peers -r tests/peers.txt
	@touch $@

fetch: .venv/.runtime ## sample clips and metric weights into the cache (checked by SHA-256)
	@$(BIN)/python -m launch.fetch --cache "$(CACHE)"

sweep: fetch ## the main study, `quick`: from clips to rank table and figures
	@$(BIN)/python -m launch.sweep +study=quick "cache_dir='$(CACHE)'"; code=$$?; \
	test $$code -eq 2 || $(BIN)/python -m analysis.refresh studies/quick || code=$$?; exit $$code

plan: fetch ## what `make sweep` would run and what is already done
	@$(BIN)/python -m launch.sweep +study=quick "cache_dir='$(CACHE)'" plan_only=true

status: .venv/.runtime ## progress of STUDY=studies/quick, read from disk (ARGS=--watch, --json, --stop)
	@$(BIN)/python -m launch.status "$$STUDY" $(ARGS)

figures: .venv/.runtime ## answer, tables and figures of STUDY=studies/quick (no torch, GPU or network)
	@$(BIN)/python -m analysis.report "$$STUDY"

votes: .venv/.runtime ## a page that asks people about STUDY=studies/quick (ARGS="--raters 6 --minutes 15"; docs/votes.md)
	@$(BIN)/python -m analysis.votes make "$$STUDY" $(ARGS)

truncation: .venv/.runtime ## truncate the largest ranks of STUDY=studies/quick by SVD to the smaller ones (CUTS=--scores: score clips too)
	@$(BIN)/python -m cinelora.export.truncate "$$STUDY" --cache "$(CACHE)" $(CUTS)
	@$(BIN)/python -m analysis.report "$$STUDY"

dashboard: .venv/.runtime ## W&B's terminal viewer for STUDY=studies/quick (no account)
	@$(BIN)/wandb leet "$$STUDY"/wandb

wandb-sync: .venv/.runtime ## upload runs, a saved view and a report of STUDY=studies/quick to W&B (TO="--entity TEAM")
	@$(BIN)/python -m analysis.report "$$STUDY" > /dev/null && $(BIN)/python -m launch.wandb_mirror "$$STUDY" $(TO)

check: .venv/.dev ## lint, format check and types (ruff, mypy)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: .venv/.dev ## format the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .

test: .venv/.dev fetch ## all tests (11 to 20 minutes on 2 cores)
	@CINELORA_CACHE="$(abspath $(CACHE))" $(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: .venv/.dev fetch ## the tests without real sweeps
	@CINELORA_CACHE="$(abspath $(CACHE))" $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-gpu: .venv/.dev fetch ## the tests of a GPU (skipped without one; CINELORA_TEST_GPU=cpu: on the CPU)
	@CINELORA_CACHE="$(abspath $(CACHE))" CINELORA_TEST_GPU="$${CINELORA_TEST_GPU:-1}" $(BIN)/python -m pytest -m gpu -rs

base: fetch ## pretrain the small base again from scratch (hours; resumable)
	@$(BIN)/python -m torch.distributed.run --standalone --nproc_per_node=$(WORKERS) \
		-m cinelora.smallbase --out assets/wan-small --state "$(CACHE)/pretrain" --weights "$(CACHE)/weights"
	@$(BIN)/python -m cinelora.smallbase.curves "$(CACHE)/pretrain" --out assets/wan-small/curves.png

metrics-selftest: fetch ## test that each score responds to what it claims to measure (7 to 9 minutes)
	@$(BIN)/python -m cinelora.score.selftest --cache "$(CACHE)"

bench: .venv/.runtime ## measure the overhead per trial on a warm gang
	@$(BIN)/python -m benchmarks.overhead

chaos: .venv/.runtime ## inject 60 faults into a sweep and compare its tables (half an hour; FAULTS=60)
	@$(BIN)/python -m benchmarks.chaos --faults $(or $(FAULTS),60)

slurm-test: .venv/.runtime fetch ## run docs/clusters/slurm.sh on a real Slurm of two nodes here (root, slurm-wlm and munge; 6 minutes)
	@$(BIN)/python -m tests.slurm.check --cache "$(CACHE)"

clean: ## remove studies and caches, keep .venv
	rm -rf studies "$(CACHE)"
