# Everything a contributor or CI does. Needs Python >= 3.11 and make; `make test-kafka` also needs Java >= 17.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Processes of pytest take whole files, in the order that tests/conftest.py gives them
BY_FILE := --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup run test test-bench test-nightly test-kafka test-browser test-faults scaling soak roles check fmt lint type hostile scenarios accept bench bench-replay bench-flood bench-detection bench-detection-full figures fuzz docs screenshots wheels lock audit sbom pin-images up down clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv from requirements.lock (once)

$(STAMP): requirements.lock requirements-uv.txt pyproject.toml door/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable door --editable .
	$(BIN)/python -m streams.worker.warm
	@touch $@

run: setup ## Show it: a model behind a gateway, ordinary clients, two attackers
	@$(BIN)/python -m examples.demo

test: setup ## The suite, on the embedded broker (PYTEST_ARGS="-n 0 -x tests/test_worker.py")
	$(BIN)/python -m streams.worker.warm
	$(BIN)/python -m pytest -n 4 $(BY_FILE) $(PYTEST_ARGS)

test-bench: setup ## Tests of the benchmarks and of the methods they compare with
	$(BIN)/python -m pytest -n 2 $(BY_FILE) tests/bench $(PYTEST_ARGS)

test-nightly: setup ## Some tests of the suite at full depth: more records, longer histories, larger files
	$(BIN)/python -m pytest -n 2 $(BY_FILE) -m nightly $(PYTEST_ARGS)

test-kafka: setup ## The integration suite, on Apache Kafka (needs Java >= 17)
	deploy/kafka/start.sh --fetch
	$(BIN)/python -m pytest -n 2 $(BY_FILE) -m kafka $(PYTEST_ARGS)

test-browser: setup ## The report in Chromium, which must be installed: `apt-get install chromium`
	$(BIN)/python -m pytest -m browser $(PYTEST_ARGS)

test-faults: setup ## Inject faults on Apache Kafka and print the table (25 minutes; less: FAULT_RUNS=1 FAULT="SIGKILL of judge")
	@$(BIN)/python -m tests.faults $(ARGS)

roles: setup ## What each role may do on Apache Kafka, tried; rewrites its table in docs/reliability.md (needs Java >= 17)
	@$(BIN)/python -m tests.kafka.roles --write-docs

scaling: setup ## Judges join, leave and are killed with the state of 100,000 clients, on Apache Kafka (5 minutes)
	@$(BIN)/python -m tests.scaling $(ARGS)

soak: setup ## Half an hour of even traffic while workers come and go: is memory flat? (SOAK_MINUTES, SOAK_RATE)
	@$(BIN)/python -m bench.soak $(ARGS)

check: lint type ## Everything that reads the code without running it

lint: setup ## ruff and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: setup ## mypy, strict
	$(BIN)/mypy

fmt: setup ## Format, and fix what can be fixed automatically
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

hostile: setup ## A probe under each of 700 tricks: judged, counted or unseen, and found at which request (3 minutes)
	@$(BIN)/python -m tests.hostile_inputs $(ARGS)

scenarios: setup ## What is said of each attack and of each look-alike
	@$(BIN)/python -m tests.scenarios.run

accept: setup ## Take what scenarios say now as expected, and show the difference
	@$(BIN)/python -m tests.scenarios.run accept

bench: setup ## How fast, beside plain readers, on Apache Kafka (10 minutes; ARGS="--quick" | "--only sketch" | "--write-docs")
	@$(BIN)/python -m bench.performance $(ARGS)

bench-replay: setup ## Ten million rows of an archive, replayed with report on one core (8 minutes, most of them to make the rows)
	@REPLAY_ROWS=10000000 $(BIN)/python -m bench.performance --only replay $(ARGS)

bench-flood: setup ## How long others wait for decisions while somebody sends what is dear to read (3 minutes)
	@$(BIN)/python -m bench.flood $(ARGS)

bench-detection: setup ## Who finds which attack, at the same false alarms: ours beside other methods (5 minutes)
	@$(BIN)/python -m bench.detection

bench-detection-full: setup ## The same on more clients, all disguises and slow methods; rewrites docs/benchmark.md
	@$(BIN)/python -m bench.detection --full --write-docs

figures: setup ## How the code is built, in figures (ARGS="--against DIR" | "--walk" | "--since REV" | "--json")
	@$(BIN)/python -m bench.figures $(ARGS)

fuzz: setup ## Mutate everything that reads foreign bytes, guided by coverage; FUZZ_SECONDS (60) each
	@$(BIN)/python -m tests.fuzz.run --seconds $${FUZZ_SECONDS:-60}

docs: setup ## Rewrite docs/configuration.md, docs/detectors/README.md and docs/schemas from the code
	$(BIN)/python -m streams.config > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(BIN)/python -m streams.cli.schemas docs/schemas
	$(BIN)/python -m detector.detectors > docs/detectors/README.md.new
	mv docs/detectors/README.md.new docs/detectors/README.md

screenshots: setup ## The report as people see it, wide, on a phone and printed: out/screenshots, docs/report.png (needs Chromium)
	@$(BIN)/python -m tests.screenshots

wheels: setup ## Both wheels, of the service and of the door for gateways: dist/
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist door
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist .

lock: setup ## Resolve the dependencies again
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras --no-emit-package probewatch-door pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra vault --no-emit-package probewatch-door -c requirements.lock pyproject.toml -o requirements-service.lock

audit: setup ## Locked packages against published vulnerabilities; says so where the database is out of reach
	@$(BIN)/python deploy/audit.py requirements.lock

sbom: setup ## What the service is made of, with hashes: out/sbom.json (CycloneDX)
	@mkdir -p out
	$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --of JSON -o out/sbom.json requirements-service.lock

pin-images: ## Today's digest behind the tag of each base image (needs docker with buildx, and its registry)
	python3 deploy/pin_images.py

up: ## Apache Kafka, topics, worker and the example gateway in containers (after `make run`)
	PROBEWATCH_UID=$$(id -u) PROBEWATCH_GID=$$(id -g) docker compose up --build --detach

down: ## Stop them and remove their volumes
	docker compose down --volumes

clean: ## Remove caches and outputs, keep .venv
	rm -rf out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
