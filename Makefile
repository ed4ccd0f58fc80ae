# `make run` and `make test` work from a bare checkout with Python 3.11 and make; the rest is for maintainers.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# ONNX Runtime with CUDA where there is an NVIDIA GPU, else the ten times smaller CPU build
RUNTIME ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
PORT ?= 8080
SEEDS ?= $(shell seq 20)

VENV := .venv
BIN := $(VENV)/bin
DATA := build/movielens
DEMO := build/demo
# what is never imported need not be compiled; what is, is compiled once
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-compile -q -c constraints.txt
LOCK := $(BIN)/pip-compile -q --strip-extras --no-emit-find-links --no-emit-index-url --no-emit-trusted-host \
	--no-header --no-annotate --unsafe-package setuptools --upgrade pyproject.toml

export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: install install-dev run programs test lint e2e siege lock audit clean
.DELETE_ON_ERROR:

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard service/*/*.pyx service/*/*.pxd)
	@echo "installing the service and training into $(VENV): 2 GB, 2 to 4 minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[$(RUNTIME),train]"
	touch $@

install-dev: $(VENV)/installed-dev

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the optional parts and what tests need: 0.7 GB more, 2 to 4 minutes"
	$(PIP) -e ".[$(RUNTIME),train,compare,options,private,traces,signed,postgres,redis,kafka,ray,federate,s3,sql,dev]"
	touch $@

$(DATA)/events.csv: | install
	@echo "downloading MovieLens-100K: 5 MB"
	$(BIN)/recguard-train movielens --out $(DATA) --cache build/cache

$(DEMO)/events.csv: $(DATA)/events.csv | install
	@echo "adding attackers of each type: 10 seconds"
	$(BIN)/recguard-train inject --events $(DATA)/events.csv --labels $(DATA)/labels.csv --out $(DEMO) --types $(TYPES)

# attackers that show in their own history; those that only look alike need evidence of the crowd
TYPES = random_push,random_nuke,average_push,average_nuke,bandwagon_push,bandwagon_nuke,segment_push,segment_nuke,click_farm,crawler,fake_order,takeover

# four users in ten of that log attack, so many that each type can be learned; scores are for traffic with fewer
$(DEMO)/bundle/manifest.json: $(DEMO)/events.csv | install
	@echo "fitting the demonstration model: 3 to 6 minutes"
	$(BIN)/recguard-train fit --events $(DEMO)/events.csv --labels $(DEMO)/labels.csv --out $(DEMO)/bundle --name demo --prevalence 0.05

run: $(DEMO)/bundle/manifest.json
	RECGUARD_STATE_DIR=$(DEMO)/state $(BIN)/recguard-train demo --bundle $(DEMO)/bundle --events $(DEMO)/events.csv --port $(PORT) --traffic 60

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

programs:  # that some tests start; those whose program is missing skip and say so
	apt-get update -qq
	apt-get install -y --no-install-recommends prometheus prometheus-alertmanager nginx chromium chromium-driver \
		postgresql redis-server procps faketime default-jdk-headless

test: lint  # in two processes, since many tests wait for others
	$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

e2e: install-dev  # tests that take minutes; those on data that is not here skip
	OMP_NUM_THREADS=$$(nproc) $(BIN)/pytest -m slow
	RECGUARD_TEST_CASES=200 $(BIN)/pytest tests/e2e/test_contract.py tests/training/data/test_describe.py  # thousands of cases

siege: install-dev  # twenty sieges of a minute or two each; as root, disks are full too
	RECGUARD_TEST_SEEDS="$(SEEDS)" RECGUARD_TEST_SIEGE_MISHAPS=40 $(BIN)/pytest -s tests/e2e/siege.py

lock: install-dev
	mkdir -p build
	$(BIN)/pip install -q pip-tools
	$(LOCK) --extra cpu --extra train --extra compare --extra options --extra private --extra traces --extra signed --extra postgres --extra redis --extra kafka --extra ray --extra s3 --extra sql --extra dev -o build/lock.txt
	$(LOCK) --extra cuda -o build/lock-cuda.txt
	(sed -n '/^#/p' constraints.txt; sed 's/+cpu$$//' build/lock.txt build/lock-cuda.txt | grep == | sort -u) > build/constraints.txt
	mv build/constraints.txt constraints.txt

audit: install-dev  # known vulnerabilities in what the lock names; asks PyPI
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

clean:
	rm -rf build $(VENV)

# the alert rules as the Prometheus Operator takes them
deploy/kubernetes/base/rules.yaml: deploy/prometheus/rules.yml
	(printf '%s\n' '# Made from prometheus/rules.yml by `make $@`.' 'apiVersion: monitoring.coreos.com/v1' \
		'kind: PrometheusRule' 'metadata:' '  name: recguard' 'spec:'; sed 's/^\(.\)/  \1/' $<) > $@
