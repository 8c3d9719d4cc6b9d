# The ways in; `make help` lists them. Settings: DATASET (demo, esc10 or a folder), PLAN (demo, full or a file), EPOCHS.
SHELL := /bin/sh
PYTHON ?= python3
PLAN ?= demo
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.audioclf-installed
SYSTEM_PACKAGES := poppler-utils chromium ffmpeg \
	slurmctld slurmd slurm-client munge iproute2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SUITE_OPTIONS := --plan "$(PLAN)"
ifdef DATASET
SUITE_OPTIONS += --dataset "$(DATASET)"
endif
ifdef EPOCHS
SUITE_OPTIONS += --epochs "$(EPOCHS)"
endif

.DEFAULT_GOAL := help
.PHONY: help setup report check test faults bench audit wheel lab gallery clean lock system-packages

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26
	@echo '  make report DATASET=esc10 PLAN=full   the real recordings, 100 epochs'

setup: $(READY) ## make .venv, install all there, and make its kernel python3 this Python's

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'audioclf needs Python 3.11 or newer; install one and name it: make setup PYTHON=python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo 'no virtual environment could be made; on Debian and Ubuntu install python3-venv' >&2; exit 1; }
	@echo 'installing into $(VENV) (some gigabytes the first time)'
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -m ipykernel install --prefix $(VENV) >/dev/null
	@touch $@

report: setup ## run the suite, then make report/report.pdf and report/report.html
	@$(BIN)/audioclf suite $(SUITE_OPTIONS); code=$$?; \
		if [ $$code -gt 1 ]; then exit $$code; fi; \
		$(BIN)/audioclf report && exit $$code

style = $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy --strict audioclf_lib && $(BIN)/lint-imports \
	&& $(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

check: setup ## check style, types, import direction and notebooks, and run the quick tests
	$(style)
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not faults and not cluster"

test: setup ## what `make check` does, and all other tests but those of `make faults`
	$(style)
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not faults"

faults: setup ## kill, fill, damage and interrupt suites at many moments, half an hour; as root, nothing is skipped
	$(BIN)/pytest -q -n 2 --dist worksteal -m "nothing_lost or faults"

bench: setup ## measure training and scoring speed beside PyTorch and Lightning, into benchmarks/results.json
	@$(BIN)/python -m pip install -q --require-hashes -r benchmarks/requirements.lock
	$(BIN)/python benchmarks/bench.py

audit: setup ## look for known vulnerabilities in what is pinned; needs the network
	@$(BIN)/python -m pip install -q pip-audit
	@$(BIN)/python .ci/audit.py

wheel: setup ## pack the library with notebooks, workflow and texts into dist/audioclf-*.whl
	@$(BIN)/python -m hatchling build -t wheel

lab: setup ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks

GALLERY_OPTIONS := --dataset "$(or $(DATASET),demo)" --epochs "$(or $(EPOCHS),10)"

gallery: setup ## run the notebooks, and write them as web pages into docs/gallery
	@$(BIN)/python tools/gallery.py $(GALLERY_OPTIONS)

clean: ## remove reports, figures and caches of tools; runs, data and .venv stay
	@rm -rf report/report.pdf report/report.html build dist *.egg-info
	@find figures -mindepth 1 ! -name README.md -delete
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find audioclf_lib tests benchmarks notebooks examples tools \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

lock: setup ## pin the newest versions that pyproject.toml allows, with hashes
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra dev --universal --generate-hashes --no-annotate \
		--no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 --output-file requirements.lock
	@$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra bench -c requirements.lock --universal --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--output-file benchmarks/requirements.lock
	@! grep -n '://' requirements.lock benchmarks/requirements.lock || { echo 'requirements.lock names an address; remove it' >&2; exit 1; }

system-packages: ## install what some tests need from Debian: poppler, Chromium, ffmpeg, Slurm
	@if ! command -v apt-get >/dev/null; then \
		echo 'no apt-get here: tests that need $(SYSTEM_PACKAGES) will be skipped'; \
	elif dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then \
		echo 'system packages: all there'; \
	elif [ "$$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then \
		echo 'neither root nor sudo: tests that need $(SYSTEM_PACKAGES) will be skipped'; \
	else \
		if [ "$$(id -u)" = 0 ]; then root=env; else root='sudo env'; fi; \
		$$root apt-get -qq update && $$root DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	fi
