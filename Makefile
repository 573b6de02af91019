# `make demo` and `make test` build .venv from nothing when it is needed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOWEST ?= .venv-lowest
# Notebooks at a time.
NOTEBOOK_JOBS ?= 1

.PHONY: demo lab test lowest lint notebooks wheel-check docs binder-check pictures benchmarks address clean help

help:
	@echo "make demo        fit the built-in demo: scores, flatmap, plots and a notebook under results/"
	@echo "make lab         open the same notebook in JupyterLab"
	@echo "make test        the whole test suite, browser test included"
	@echo "make lowest      the tests on the oldest versions that pyproject.toml allows, in a fresh environment (LOWEST=folder)"
	@echo "make lint        ruff (lint and format) and mypy (types)"
	@echo "make notebooks   run every notebook with an empty cache, and print its run time next to the one it states"
	@echo "make wheel-check  build the wheel and run the demo from it outside the repository"
	@echo "make docs        the API page, the tables of folders and files, and the picture, from the code"
	@echo "make binder-check  follow binder/ in a fresh environment (minutes, a large download)"
	@echo "make address OWNER=account  write the address of the repository into badges and links"
	@echo "make pictures    the README's two pictures, from the demo"
	@echo "make benchmarks  timings and memory: fit, maps, panel, sweep, features and ridge (half an hour, idle)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'encoding_nb needs Python 3.11 or newer; choose one with: make PYTHON=/path/to/python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

demo: $(STAMP)
	$(BIN)/python -m encoding_nb demo --results results

lab: $(STAMP)
	$(BIN)/python -m encoding_nb lab

test: $(STAMP)
	sh tests/browser/get_chromium.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lowest:
	PYTHON=$(PYTHON) sh tools/lowest.sh $(LOWEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(STAMP)
	$(BIN)/python benchmarks/notebooks.py --out results/notebooks --jobs $(NOTEBOOK_JOBS)

wheel-check: $(STAMP)
	PYTHON=$(BIN)/python sh tools/wheel_check.sh

docs: $(STAMP)
	$(BIN)/python docs/make_architecture.py
	$(BIN)/python docs/make_api.py

binder-check:
	$(PYTHON) benchmarks/binder_check.py

# Once, when you host the repository: these three files have OWNER in place of the account.
address:
	@test -n "$(OWNER)" || { echo "name the account that hosts the repository: make address OWNER=account"; exit 1; }
	sed -i.bak 's|/OWNER/encoding_nb|/$(OWNER)/encoding_nb|g; s|252FOWNER%|252F$(OWNER)%|g' README.md binder/README.md binder/colab.ipynb
	rm README.md.bak binder/README.md.bak binder/colab.ipynb.bak

pictures: $(STAMP)
	sh tests/browser/get_chromium.sh
	$(BIN)/python docs/make_pictures.py

benchmarks: $(STAMP)
	for each in fit brain panel sweep features ridge; do $(BIN)/python benchmarks/$$each.py; done

clean:
	rm -rf $(VENV) results screenshots
