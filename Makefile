# make setup · make demo · make check · make test · make faults · make attack · make integrations · make four-bits
# make bench · make matrix · make lock · make release:
# each works from a bare clone and says what it does.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready

.PHONY: setup demo check test rooms services grids faults attack integrations four-bits environments bench matrix matrix-oldest matrix-newest matrix-locked lock release clean

setup: $(READY)

# pip compiles one file after the other; this takes all cores. A few files are not meant to compile: templates, say.
compiled = $(1)/bin/python -m compileall -q -j 0 $(1)/lib >/dev/null || true

# The stamp is as new as the dependencies: a second call does nothing.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	$(call compiled,.venv)
	$(BIN)/fedrag models fetch
	touch $(READY)

demo: $(READY)
	$(BIN)/fedrag simulate simulations/scenarios/demo.toml

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Later -m options replace the default of pyproject.toml, which leaves the slow tests out too. Two workers take a file at
# a time; what starts coordinators and sites comes after them, so that their processes compete with no other tests; what
# starts Ray comes last and one at a time, since two of it on one machine disturb each other. A worker that dies ends the
# tests: what xdist begins in its place may wait for ever.
SERVICES := tests/deployed tests/faults tests/coordinator
FAST_AND_SLOW := -m "not acceptance and not faults" --durations=10
A_FILE_EACH := --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
TWO_AT_A_TIME := $(FAST_AND_SLOW) $(A_FILE_EACH) -n 2
test: $(READY)
	$(MAKE) rooms
	$(MAKE) services
	$(MAKE) grids
	@echo "Ran: the fast and the slow tests (real models)."
	@echo "Left out: acceptance (whole scenarios): $(BIN)/pytest -m acceptance"
	@echo "Left out: faults (processes that are killed): make faults"
	@echo "Left out: LlamaIndex, LangChain, Haystack, notebooks and trackers: make integrations"
	@echo "Left out: bitsandbytes: make four-bits"

rooms: $(READY)
	$(BIN)/pytest $(TWO_AT_A_TIME) $(addprefix --ignore=,$(SERVICES) tests/grids)
services: $(READY)
	$(BIN)/pytest $(TWO_AT_A_TIME) $(SERVICES)
grids: $(READY)
	$(BIN)/pytest $(FAST_AND_SLOW) tests/grids

# Every process of a run and of a deployment is killed at some moment; about ten minutes.
faults: $(READY)
	$(BIN)/pytest -m faults tests/faults tests/deployed --durations=10

KILLED := tests/deployed/test_deployment.py tests/deployed/test_killed_processes.py
# Every test that the table of threats in server/README.md names, and every process killed at some moment.
attack: $(READY)
	$(BIN)/pytest -m "not acceptance" $(A_FILE_EACH) -n 2 --durations=10 \
		$$($(BIN)/python tests/attack/threats.py) tests/attack tests/faults $(KILLED)

# The libraries that load exported models or are bridged to, and those that show runs, 400 MB in an environment on top of
# the first: langchain-huggingface takes no huggingface_hub 2, which everything else runs with.
integrations: .integrations/.ready
	.integrations/bin/python -m pytest -m slow tests/integrations

# Models in 4 bits: where bitsandbytes is installed, every start of a process pays for its import.
four-bits: .4bit/.ready
	.4bit/bin/python -m pytest -m "not acceptance and not faults" -k "four_bits or 4_bits" tests/models \
		tests/cli/test_bad_input.py tests/zoo/test_shipped_scenarios.py

# One after the other: both write fedrag.egg-info.
environments:
	$(MAKE) .integrations/.ready
	$(MAKE) .4bit/.ready

# An environment on top of the first, with what an extra of its name adds.
.integrations/.ready .4bit/.ready: .%/.ready: $(READY)
	$(BIN)/python -m venv --clear .$*
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$(.$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first_environment.pth
	.$*/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

# Needs the machine to itself; the peers it is compared with are installed first.
bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python tests/benchmarks/run.py

# The fast tests of what computes: with the oldest release of each library that pyproject.toml admits, with the newest,
# and with the locked ones. Two of the three environments hold PyTorch for CUDA: 15 GB in all.
COMPUTING := tests/models tests/passes tests/weights tests/training tests/rag $(wildcard tests/components)
matrix: matrix-oldest matrix-newest matrix-locked

matrix-oldest: RESOLUTION := lowest-direct
matrix-newest: RESOLUTION := highest
matrix-oldest matrix-newest: matrix-%: $(READY)
	$(BIN)/uv venv --quiet --clear --seed --python $(BIN)/python .matrix/$*
	$(BIN)/uv pip install --quiet --python .matrix/$* --resolution $(RESOLUTION) -e '.[dev]'
	.matrix/$*/bin/pytest $(COMPUTING)

matrix-locked:
	$(PYTHON) -m venv --clear .matrix/locked
	.matrix/locked/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-cpu.lock
	.matrix/locked/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	.matrix/locked/bin/pytest $(COMPUTING)

# What sites install: one lock with PyTorch of PyPI, which brings CUDA, one with its CPU build for Python 3.11 on x86_64.
# Where PyTorch's own index cannot be reached: make lock CPU_TORCH="--find-links FOLDER_WITH_THE_WHEEL".
LOCK      := uv pip compile --quiet --upgrade --generate-hashes --constraints constraints.txt pyproject.toml
CPU_TORCH ?= --torch-backend cpu
lock: $(READY)
	$(BIN)/$(LOCK) --python-version 3.11 --universal -o requirements.lock
	$(BIN)/$(LOCK) --python-version 3.11 --python-platform x86_64-manylinux_2_28 $(CPU_TORCH) -o requirements-cpu.lock

# What sites are handed, in dist: the wheel, what it was tested with, and what that consists of (CycloneDX), with their
# sums, signed: make release KEY=PRIVATE_KEY. The tools have an environment of their own.
RELEASE_TOOLS := 'build>=1.2.1,<2' 'setuptools>=77' 'cyclonedx-bom>=7.5,<8'
SBOM := .release/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON
release: $(READY)
	@test -f "$(KEY)" || { echo "KEY=$(KEY) is no file; a key: $(BIN)/python -m fedrag.security.file_signature new KEY"; exit 2; }
	$(PYTHON) -m venv .release
	.release/bin/pip install --quiet --disable-pip-version-check $(RELEASE_TOOLS)
	rm -rf dist build
	.release/bin/python -m build --wheel --no-isolation
	cp requirements.lock requirements-cpu.lock dist
	for lock in requirements requirements-cpu; do $(SBOM) -o dist/$$lock.cdx.json $$lock.lock || exit; done
	cd dist && sha256sum * > SHA256SUMS
	$(BIN)/python -m fedrag.security.file_signature sign $(KEY) dist/SHA256SUMS

clean:
	rm -rf .venv .matrix .integrations .4bit .release build dist .mypy_cache .ruff_cache .pytest_cache
