# make setup · make demo · make check · make test · make faults · make bench: each works from a bare clone and says what it does.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready

.PHONY: setup demo check test faults bench clean

setup: $(READY)

# The stamp is as new as the dependencies: a second call does nothing.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/fedrag models fetch
	touch $(READY)

demo: $(READY)
	$(BIN)/fedrag simulate simulations/scenarios/demo.toml

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Later -m options replace the default of pyproject.toml, which leaves the slow tests out too. Two workers, each with one
# thread: tests/conftest.py says which tests stay together. Without -n, pytest runs the same tests one after the other.
test: $(READY)
	$(BIN)/pytest -m "not acceptance and not faults" -n 2 --dist loadgroup --no-loadscope-reorder --durations=10
	@echo "Ran: the fast and the slow tests (real models)."
	@echo "Left out: acceptance (whole scenarios): $(BIN)/pytest -m acceptance"
	@echo "Left out: faults (processes that are killed): make faults"

# Every process of a run and of a deployment is killed at some moment; about ten minutes.
faults: $(READY)
	$(BIN)/pytest -m faults tests/faults tests/deployed --durations=10

# Needs the machine to itself; the peers it is compared with are installed first.
bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python tests/benchmarks/run.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
