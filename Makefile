# Thin targets: what they do is in lab/, tests/, molecule/ and bench/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The interpreter that starts everything, before the virtual environment exists.
PYTHON := $(shell command -v python3)
VENV := .venv/bin
export PATH := $(CURDIR)/$(VENV):$(CURDIR)/.cache/tools/bin:$(PATH)
# Ansible insists on UTF-8; a bare machine may have no locale set.
export LC_ALL := C.UTF-8

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: tools
tools: ## Fetch promtool and amtool into .cache/tools/bin
	@$(PYTHON) -m lab.tools
