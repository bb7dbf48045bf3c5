# The two commands of the README are `make run` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready
# one more than there are cores: tests often wait for processes that they started
WORKERS = $$(($$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1))

.PHONY: run test test-full lint lab setup bench clean

run: $(SETUP)
	@$(BIN)/workbench run experiments/quickstart.yaml

test: $(SETUP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-full: $(SETUP)
	@$(BIN)/python -m pytest -m "slow and not live" --timeout 1800 -n 2 --dist loadfile

lint: $(SETUP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lab: $(SETUP)
	@$(BIN)/workbench lab $(ARGS)

bench: $(SETUP)
	@for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

setup: $(SETUP)

# torch goes first and pinned: an open range would pull gigabytes of GPU builds on a CPU machine
$(SETUP): pyproject.toml constraints.txt
	@echo "setting up .venv (2 to 4 minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; call make with PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache dist
