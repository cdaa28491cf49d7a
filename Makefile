# `make` alone lists what there is. PYTHON=python3.12 chooses the interpreter that .venv is made with.

BIN := .venv/bin
VERSIONS := scripts/constraints.txt
KEY := $(shell { cat setup.cfg pyproject.toml $(VERSIONS); pwd; } | cksum | tr -d ' ')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VERSIONS)
CODE := hub hubbub_agents agents tests scripts

# A .venv whose Python is gone, or was never whole, is made anew.
$(shell test -x $(BIN)/python || rm -rf .venv)

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install model run test lint lint-js types torture-short torture coverage bench screenshots constraints clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

install: .venv/.core-$(KEY) ## make .venv with the present tree and the command .venv/bin/hubbub

model: install ## fetch the local model
	@$(BIN)/python scripts/fetch_model.py

run: install ## install, also what the agents require, fetch the model if it can be had, start the hub
	@$(BIN)/python scripts/install_requirements.py
	@$(BIN)/python scripts/fetch_model.py --optional
	@exec $(BIN)/hubbub serve

test: .venv/.test-$(KEY) ## every test but those of torture
	$(BIN)/python -m pytest -n 2 --ignore=tests/torture

torture-short: .venv/.test-$(KEY) ## kills, stops, power cuts, bad disks and bad agents, 3 minutes
	$(BIN)/python -m pytest tests/torture

torture: .venv/.test-$(KEY) ## the same for long
	HUBBUB_TEST_TORTURE=long $(BIN)/python -m pytest tests/torture

coverage: .venv/.test-$(KEY) ## measure which branches of hub/ the tests run, in 15 minutes; fails under 90 %
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -n 2 --ignore=tests/torture
	@$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage json --quiet -o build/coverage/report.json
	@$(BIN)/python scripts/check_coverage.py && $(BIN)/python -m coverage report --skip-covered

bench: .venv/.bench-$(KEY) ## measure the hub beside its peers, under 10 minutes; ARGS=--help
	@$(BIN)/python scripts/bench $(ARGS)

screenshots: .venv/.test-$(KEY) ## take the console's pictures for docs/images; needs Chromium
	@$(BIN)/python scripts/screenshots/take.py $(ARGS)

lint: .venv/.lint-$(KEY) ## black, isort, flake8, codespell
	$(BIN)/python -m black --quiet --check --diff -l 120 $(CODE)
	$(BIN)/python -m isort --check $(CODE) && $(BIN)/python -m flake8 $(CODE)
	$(BIN)/codespell $(CODE) docs .ci *.md setup.cfg Makefile

lint-js: build/lint_js/.installed ## tsc and eslint for the JavaScript; needs npm
	build/lint_js/node_modules/.bin/tsc -p scripts/lint_js
	build/lint_js/node_modules/.bin/eslint -c build/lint_js/eslint.config.js hub/client_js hub/console hub/reference tests/support/javascript

types: .venv/.lint-$(KEY) ## mypy
	$(BIN)/python -m mypy

constraints: $(BIN)/python ## write the newest versions of all packages to scripts/constraints.txt; run the checks afterwards
	@echo 'Resolving the newest versions ...' && rm -rf build/versions && $(BIN)/python -m venv build/versions
	@build/versions/bin/python -m pip install --quiet --disable-pip-version-check '.[cli,test,lint,bench]'
	@{ head -1 $(VERSIONS); build/versions/bin/python -m pip freeze --exclude hubbub; } > build/versions.txt
	@mv build/versions.txt $(VERSIONS) && git --no-pager diff --stat -- $(VERSIONS)

clean: ## take away .venv and what tools left; data/ stays
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .hypothesis && find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@python='$(PYTHON)'; test -n "$$python" || python=$$(scripts/choose_python); \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hubbub needs Python 3.11 or later; $$python is none. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$$python has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	echo "Making .venv with $$python ..."; \
	$$python -m venv .venv

.venv/.core-$(KEY): | $(BIN)/python
	@echo 'Installing Hubbub into .venv ...'
	@rm -f .venv/.core-* && $(PIP) --editable '.[cli]' && touch $@

.venv/.test-$(KEY): | .venv/.core-$(KEY)
	@rm -f .venv/.test-* && $(PIP) --editable '.[cli,test]' && touch $@

.venv/.lint-$(KEY): | .venv/.core-$(KEY)
	@rm -f .venv/.lint-* && $(PIP) --editable '.[cli,lint]' && touch $@

.venv/.bench-$(KEY): | .venv/.core-$(KEY)
	@echo 'Installing the peers from PyPI ...'
	@rm -f .venv/.bench-* && $(PIP) --editable '.[cli,bench]' && touch $@

build/lint_js/.installed: $(wildcard scripts/lint_js/*)
	@command -v npm >/dev/null || { echo 'make lint-js needs npm. On Debian and Ubuntu: apt-get install npm' >&2; exit 1; }
	@mkdir -p build/lint_js && cp scripts/lint_js/* build/lint_js
	@cd build/lint_js && npm ci --silent --no-audit --no-fund && touch .installed
