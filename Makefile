# make demo       train a federation through Flower, print the comparison with the heuristics
# make test       ruff, mypy, import-linter, pytest
# make test-slow  the tests that take minutes
# make coverage   the tests of make test, with their coverage and its floor; twice the time
# make fuzz       hostile replies, files, handshakes, settings and calls for ten minutes: FUZZ_SECONDS=600
# make benchmark  speed of the world, of learning and of the strategies
# make docs       the pages of docs/ and the API reference as one site, build/site/index.html
# make lock       the versions and hashes of deploy/requirements.lock; make demo LOCKED=1 installs exactly these
# make audit      known weaknesses of the locked versions; needs the internet
# make lowest     the tests with the lowest versions that pyproject.toml allows, in build/lowest
# make flower     the tests of the strategies and of the warm worker with the lowest Flower that is allowed, and the newest there is
# make release    wheels and sources of both distributions and a bill of materials (CycloneDX) in dist/;
#                 ADDRESS=https://github.com/OWNER/NAME/blob/main makes the links of readmes absolute
# make hub        the app as Flower Hub takes it, in build/hub/fauno-flwr; ADDRESS as for make release
#                 makes the image of its readme absolute, without it there is none

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
LOCK = deploy/requirements.lock
FUZZ_SECONDS = 600
FLOWER_TESTS = tests/strategies tests/test_hub.py tests/fauno_flwr/deployment/test_warm_worker.py
OUT = results/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-slow benchmark fuzz coverage docs lock audit lowest flower release hub install lint clean

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

# For every system, and Python 3.11 or newer. Flower brings uv with it.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes --quiet \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --output-file $(LOCK)

# --strict: what cannot be looked up is a failure too.
audit: $(VENV)/.installed-release
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement $(LOCK)

# An environment of its own, which is made anew. Old libraries warn of themselves: no error here.
lowest: $(VENV)/.installed
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest --resolution lowest-direct --editable '.[dev]'
	build/lowest/bin/pytest -n logical -W default

# Laid over the environment, which has the other libraries. A newest one that was never tested is refused in one
# sentence: test it, then add it to strategies/flower_internals.py and to the bounds of pyproject.toml.
flower: $(VENV)/.installed-dev
	for which in lowest-direct highest; do \
		rm -rf build/flower; \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --target build/flower --resolution $$which \
			'flwr[simulation]>=1.41' || exit 1; \
		export PYTHONPATH=$(CURDIR)/build/flower; \
		$(BIN)/python -c 'import flwr; print("Flower", flwr.__version__)'; \
		$(BIN)/pytest $(FLOWER_TESTS) || exit 1; \
	done

release: $(VENV)/.installed-release
	rm -rf dist build/fauno-strategies
	$(BIN)/python -m build --outdir dist
	$(BIN)/python release/stage.py strategies build/fauno-strategies $(ADDRESS)
	$(BIN)/python -m build --outdir dist build/fauno-strategies
	$(BIN)/cyclonedx-py requirements $(LOCK) --pyproject pyproject.toml --output-reproducible \
		--output-file dist/fauno-flwr.cdx.json

hub: $(VENV)/.installed
	rm -rf build/hub
	$(BIN)/python release/stage.py hub build/hub/fauno-flwr $(ADDRESS)
	cd build/hub && $(CURDIR)/$(BIN)/flwr build --app fauno-flwr

install: $(VENV)/.installed

# Compiles the kernels for this machine, so that the first run need not.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(if $(LOCKED),$(BIN)/python -m pip install --quiet --require-hashes --requirement $(LOCK))
	$(BIN)/python -m pip install --quiet $(if $(LOCKED),--no-deps) --editable .
	$(BIN)/fauno prepare
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/fauno prepare --all
	touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	touch $@

clean:
	rm -rf $(VENV) results build dist
