# Everything runs in an environment of its own, .venv, made here with plain venv and pip.
#
#   make demo            the product on real text; options with ARGS="--keep DIR"
#   make test            the tests; options with ARGS="-k funnel"
#   make lint types      what .ci/run adds to the tests
#   make sync            the synchronous engine, written from the asynchronous one
#   make PYTHON=python3.12 ...   another Python
#
# Names that make handles are relative: it would split an absolute path at a space.

PYTHON ?= python3
ARGS   ?=

VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet

.PHONY: demo test lint types sync format clean
.DELETE_ON_ERROR:

# An environment holds absolute paths, so one that was moved or copied here is installed into anew.
ifneq ($(shell cat $(VENV)/.made-in 2>/dev/null),$(CURDIR))
$(shell rm -f $(VENV)/.installed-*)
endif

demo: $(VENV)/.installed-demo
	$(BIN)/funnelvec demo $(ARGS)

test: $(VENV)/.installed-dev
	FUNNELVEC_REQUIRE=postgres $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/write_sync.py --check

types: $(VENV)/.installed-dev
	$(BIN)/mypy

sync: $(VENV)/.installed-dev
	$(BIN)/python tools/write_sync.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find plugin tests -name __pycache__ -type d -prune -exec rm -rf {} +
	$(MAKE) -C sql clean

# One stamp per set of extras. Written last: an interrupted installation is done again.
$(VENV)/.installed-%: pyproject.toml sql/funnelvec.control
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo 'funnelvec needs Python 3.10 or newer, and PYTHON=$(PYTHON) is not: name one, as in "make $(MAKECMDGOALS) PYTHON=python3.12"' >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { \
		echo '$(PYTHON) comes without venv: install its venv package (Debian, Ubuntu: apt-get install python3-venv)' >&2; \
		exit 1; }
	@echo 'installing funnelvec[$*] into $(VENV); the first time takes a minute or two'
	@"$(PYTHON)" -m venv $(VENV)
	@# Not compiled: that takes longer than installing, and what is used is compiled when it is first imported.
	@$(PIP) --no-compile --editable '.[$*]'
	@pwd > $(VENV)/.made-in
	@touch $@
