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

##@ The lab

.PHONY: lab
lab: ## Start the lab, or bring it up to date (LAB_RELEASE=bookworm|trixie LAB_NODES=3)
	@$(PYTHON) -m lab up

.PHONY: lab-alert
lab-alert: ## Play an incident in the lab and follow it to the mailbox
	@$(VENV)/python -m lab.alert

.PHONY: lab-status
lab-status: ## Show what of the lab runs, and where
	@$(PYTHON) -m lab status

.PHONY: lab-down
lab-down: ## Remove the lab: hosts, network, images, secrets
	@$(PYTHON) -m lab down

##@ Tests

.PHONY: test
test: prepare lint ## Run every test; Molecule makes hosts of its own
	pytest tests
	molecule test --all

.PHONY: test-fast
test-fast: venv tools lint ## Run everything that needs no host
	pytest tests

.PHONY: lint
lint: venv ## Check style and types
	yamllint --strict .
	ansible-lint
	ruff check .
	ruff format --check .
	mypy lab plugins src tests

.PHONY: bench-converge bench-targets bench-lab bench-sandbox
bench-converge bench-targets bench-lab bench-sandbox: venv
	@$(VENV)/python -m bench.$(@:bench-%=%)

##@ Maintenance

.PHONY: docs
docs: venv ## Write the generated reference pages
	@$(VENV)/python -m docs.generate

.PHONY: lock
lock: ## Lock the newest allowed Python dependencies
	@$(PYTHON) -m lab.lock

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
