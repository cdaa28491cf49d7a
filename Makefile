# `make` without a target lists the targets. PYTHON=python3.12 chooses the interpreter for .venv.

BIN := .venv/bin
VERSIONS := scripts/constraints.txt
KEY := $(shell { cat setup.cfg pyproject.toml $(VERSIONS); pwd; } | cksum | tr -d ' ')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VERSIONS)
CODE := hub hubbub_agents agents tests scripts
# Folders of tests/ with targets of their own.
HEAVY := torture fuzz package clients proxies
IGNORE_HEAVY := $(HEAVY:%=--ignore=tests/%)

# Remove a .venv without a working Python, so that it is created again.
$(shell test -x $(BIN)/python || rm -rf .venv)

# Tests start hundreds of Python processes. Without bytecode files, each would compile the hub again: 0.2 s of CPU time.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install model run surface client-types wheel test package clients proxies lint lint-js types torture-short \
	torture fuzz coverage bench screenshots constraints clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

install: .venv/.core-$(KEY) ## create .venv with this source tree and the command .venv/bin/hubbub

model: install ## fetch the local model
	@$(BIN)/hubbub model

run: install ## install the hub and the agents' requirements, fetch the model if possible, start the hub
	@$(BIN)/python scripts/install_requirements.py
	@$(BIN)/hubbub model --optional
	@exec $(BIN)/hubbub serve

surface: .venv/.test-$(KEY) ## write the public names of a release to tests/docs/surface.txt
	@PYTHONPATH=tests $(BIN)/python -m support.surface

client-types: install ## write the types of hub/messages to hub/client_js/client.d.ts
	@$(BIN)/python scripts/client_types/write.py

wheel: $(BIN)/python ## build the wheel in dist/
	@rm -rf build/lib build/bdist.* dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . && ls dist/*.whl

# Tests wait for about a quarter of their time, so that 3 processes keep 2 cores busy.
test: .venv/.test-$(KEY) ## run all tests except those of torture, fuzz, package, clients and proxies
	@PYTHONPATH=tests $(BIN)/python -m support.node
	$(BIN)/python -m pytest -n 3 $(IGNORE_HEAVY)

package: .venv/.test-$(KEY) ## install the wheel into a bare environment, and run it with the local model, 1 minute
	$(BIN)/python -m pytest tests/package

clients: .venv/.test-$(KEY) ## run clients of other projects from PyPI and npm; ARGS='-k NAME' runs one
	$(BIN)/python -m pytest tests/clients $(ARGS)

proxies: .venv/.test-$(KEY) ## test nginx, Caddy and HAProxy in front of a hub, and attack it with slowhttptest, 4 minutes
	$(BIN)/python -m pytest -n 2 tests/proxies $(ARGS)

torture-short: .venv/.test-$(KEY) ## test kills, stops, power cuts, bad disks and bad agents for 3 minutes
	$(BIN)/python -m pytest tests/torture

torture: .venv/.test-$(KEY) ## run the same tests for a long time
	HUBBUB_TEST_TORTURE=long $(BIN)/python -m pytest tests/torture

fuzz: .venv/.fuzz-$(KEY) ## send 100,000 random frames and Autobahn's cases to a hub, 5 minutes
	$(BIN)/python -m pytest tests/fuzz

coverage: .venv/.test-$(KEY) ## measure the branches of hub/ that the tests run, 15 minutes; fails under 90 %
	@rm -rf build/coverage && mkdir -p build/coverage && PYTHONPATH=tests $(BIN)/python -m support.node
	$(BIN)/python -m coverage run -m pytest -n 2 -m 'not exact' $(IGNORE_HEAVY)
	@$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage json --quiet -o build/coverage/report.json
	@$(BIN)/python scripts/check_coverage.py && $(BIN)/python -m coverage report --skip-covered

bench: .venv/.bench-$(KEY) ## measure the hub and its peers, under 10 minutes; ARGS=--help
	@$(BIN)/python scripts/bench $(ARGS)

screenshots: .venv/.test-$(KEY) ## take the screenshots of the console for docs/images; needs Chromium
	@$(BIN)/python scripts/screenshots/take.py $(ARGS)

lint: .venv/.lint-$(KEY) ## run black, isort, flake8 and codespell
	$(BIN)/python -m black --quiet --check --diff -l 120 $(CODE)
	$(BIN)/python -m isort --check $(CODE) && $(BIN)/python -m flake8 $(CODE)
	$(BIN)/codespell $(CODE) docs .ci *.md setup.cfg Makefile

lint-js: build/lint_js/.installed ## run tsc and eslint on the JavaScript; needs npm
	build/lint_js/node_modules/.bin/tsc -p scripts/lint_js
	build/lint_js/node_modules/.bin/eslint -c build/lint_js/eslint.config.js hub/client_js hub/console hub/reference tests/support/javascript tests/clients

types: .venv/.types-$(KEY) ## run mypy
	$(BIN)/python -m mypy

constraints: $(BIN)/python ## write the newest versions of all packages to scripts/constraints.txt; run all checks afterwards
	@echo 'Resolving the newest versions ...' && rm -rf build/versions && $(BIN)/python -m venv build/versions
	@build/versions/bin/python -m pip install --quiet --disable-pip-version-check '.[cli,model,test,fuzz,lint,bench]'
	@{ head -1 $(VERSIONS); build/versions/bin/python -m pip freeze --all --exclude hubbub --exclude pip; } > build/versions.txt
	@mv build/versions.txt $(VERSIONS) && git --no-pager diff --stat -- $(VERSIONS)

clean: ## delete .venv and the files of tools; data/ stays
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .hypothesis && find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@python='$(PYTHON)'; test -n "$$python" || python=$$(scripts/choose_python); \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hubbub needs Python 3.11 or later; $$python is older. Choose one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$$python has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	echo "Creating .venv with $$python ..."; \
	$$python -m venv .venv

.venv/.core-$(KEY): | $(BIN)/python
	@echo 'Installing Hubbub into .venv ...'
	@rm -f .venv/.core-* && $(PIP) --editable '.[cli]' && touch $@

.venv/.test-$(KEY): | .venv/.core-$(KEY)
	@rm -f .venv/.test-* && $(PIP) --editable '.[cli,test]' && touch $@

.venv/.fuzz-$(KEY): | .venv/.test-$(KEY)
	@rm -f .venv/.fuzz-* && $(PIP) --editable '.[cli,test,fuzz]' && touch $@

.venv/.lint-$(KEY): | .venv/.core-$(KEY)
	@rm -f .venv/.lint-* && $(PIP) --editable '.[cli,lint]' && touch $@

.venv/.types-$(KEY): | .venv/.core-$(KEY)
	@rm -f .venv/.types-* && $(PIP) --editable '.[cli,lint,test,bench]' && touch $@

.venv/.bench-$(KEY): | .venv/.core-$(KEY)
	@echo 'Installing the peers from PyPI ...'
	@rm -f .venv/.bench-* && $(PIP) --editable '.[cli,bench]' && touch $@

build/lint_js/.installed: $(wildcard scripts/lint_js/*)
	@command -v npm >/dev/null || { echo 'make lint-js needs npm. On Debian and Ubuntu: apt-get install npm' >&2; exit 1; }
	@mkdir -p build/lint_js && cp scripts/lint_js/* build/lint_js
	@cd build/lint_js && npm ci --silent --no-audit --no-fund && touch .installed
