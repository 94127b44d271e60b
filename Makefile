# make demo       train a federation through Flower, print the comparison with the heuristics
# make test       ruff, mypy, import-linter, pytest
# make test-slow  the tests that take minutes
# make coverage   the tests of make test, with their coverage and its floor; twice the time
# make fuzz       hostile replies, metrics, files and checkpoints for ten minutes: FUZZ_SECONDS=600
# make benchmark  speed of the world, of learning and of the strategies
# make docs       the pages of docs/ and the API reference as one site, build/site/index.html

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
FUZZ_SECONDS = 600
OUT = results/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-slow fuzz benchmark coverage docs install lint clean

demo: $(VENV)/.installed
	$(BIN)/fauno simulate --out $(OUT)

test: $(VENV)/.installed-dev lint
	$(BIN)/pytest -n logical

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --out build/fuzz

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(VENV)/.installed-dev
	$(BIN)/pytest -o python_files='bench_*.py' --benchmark-columns=median,rounds benchmarks

# Apart from `make test`: tracing doubles the time of Python code before Python 3.12.
coverage: $(VENV)/.installed-dev
	$(BIN)/pytest -n logical --cov

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(VENV)/.installed

# Compiles the kernels for this machine, so that the first run need not.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/fauno prepare
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/fauno prepare --all
	touch $@

clean:
	rm -rf $(VENV) results build dist
