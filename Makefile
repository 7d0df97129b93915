# Thin targets: the work is done in lab/, tests/, molecule/ and bench/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Starts everything, before the virtual environment exists: any Python from 3.11 on.
PYTHON := $(shell command -v python3)
VENV := .venv/bin
export PATH := $(CURDIR)/$(VENV):$(CURDIR)/.cache/tools/bin:$(PATH)
# Ansible insists on UTF-8; a bare machine may have no locale set.
export LC_ALL := C.UTF-8

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: lab
lab: ## Start the lab, or bring it up to date (LAB_RELEASE=bookworm|trixie LAB_NODES=3 GRAFANA_RELEASE=file|URL)
	@$(PYTHON) -m lab up

.PHONY: lab-alert
lab-alert: ## Play an incident in the lab and follow it to the mailbox
	@$(VENV)/python -m lab.alert

.PHONY: lab-load
lab-load: ## Load the lab's transactions for a while (LAB_LOAD_SECONDS=60 LAB_LOAD_RATE=20 LAB_LOAD_USERS=10)
	@$(VENV)/python -m lab.load

.PHONY: lab-status
lab-status: ## Show what of the lab runs, and where
	@$(PYTHON) -m lab status

.PHONY: lab-down
lab-down: ## Remove the lab: hosts, network, images, secrets
	@$(PYTHON) -m lab down

.PHONY: box
box: ## Build a Debian box for Vagrant from this machine's package mirror (LAB_RELEASE=bookworm|trixie)
	@$(PYTHON) -m lab.box

.PHONY: lab-vagrant
lab-vagrant: ## The lab on virtual machines: vagrant up, after a look at what it needs (LAB_NODES=1 LAB_VM_MEMORY=1024)
	@$(PYTHON) -m lab.vagrant up

.PHONY: test
test: prepare lint ## Run every test; Molecule makes hosts of its own
	pytest --numprocesses=4 -m "not slow" tests # most of them wait
	pytest --numprocesses=2 -m slow tests # these work
	molecule test --all

.PHONY: test-fast
test-fast: venv tools lint ## Run everything that needs no host and is quick
	pytest --numprocesses=4 -m "not slow" tests # most of them wait

.PHONY: test-vagrant
test-vagrant: venv ## Run site.yml and the tests on two emulated virtual machines (LAB_KEEP=1 keeps them)
	@$(VENV)/python -m lab.emulation

.PHONY: lint
lint: venv ## Check style and types
	yamllint --strict .
	ansible-lint
	ruff check .
	ruff format --check .
	mypy lab plugins roles src tests bench docs molecule

.PHONY: bench-converge bench-targets bench-lab bench-sandbox bench-receiver bench-dashboards bench-collector bench-usage
bench-converge: ## Measure runs of site.yml: tasks, time, changes
bench-targets: ## Measure the scrape targets of 10,000 hosts: time and memory
bench-lab: ## Measure make lab in a fresh clone, first and second time
bench-sandbox: ## Measure the sandboxes of all units in the lab
bench-receiver: ## Measure the alert receiver: durable posts a second, latency, memory
bench-dashboards: ## Measure the dashboards with 500 hosts and a day in view
bench-collector: ## Measure a scrape of the metrics collector beside node_exporter
bench-usage: ## Measure the usage API with 200 hosts and 30 days: time and memory
bench-converge bench-targets bench-lab bench-sandbox bench-receiver bench-dashboards bench-collector bench-usage: venv
	@$(VENV)/python -m bench.$(@:bench-%=%)

.PHONY: docs
docs: venv ## Write the generated reference pages
	@$(VENV)/python -m docs.generate

.PHONY: dashboards
dashboards: venv ## Write the JSON of the dashboards
	@$(VENV)/python -m fleetwatch.dashboards

LOCK := .cache/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --generate-hashes \
	--no-emit-index-url $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: .cache/uv ## Lock the Python dependencies (UPGRADE=1: the newest that are allowed)
	$(LOCK) pyproject.toml -o requirements/services.txt
	$(LOCK) requirements/dev.in pyproject.toml -c requirements/services.txt -o requirements/dev.txt

.cache/uv:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet uv

.PHONY: prepare
prepare: ## Install what the lab and the tests need, saying what
	@$(PYTHON) -m lab.prepare

.PHONY: venv
venv: ## Make the virtual environment with the locked packages
	@$(PYTHON) -m lab.prepare --only venv

.PHONY: tools
tools: ## Fetch promtool and amtool into .cache/tools/bin
	@$(PYTHON) -m lab.tools

.PHONY: clean
clean: ## Remove what can be made again (.venv, .cache); not the lab
	rm -rf .venv .cache .ansible .mypy_cache .pytest_cache .ruff_cache
