# Two commands matter to a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_FLAGS ?=
# The extra `tpm` is built against the TSS libraries: it comes along where they are (libtss2-dev, a compiler).
DEV_EXTRAS ?= dev,pkcs11$(shell pkg-config --exists tss2-esys 2>/dev/null && echo ,tpm)

.PHONY: demo test check test-docker fuzz mutations lock clean help

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1  /p' $(MAKEFILE_LIST) | column -t -l 2

# Keys in a token or a TPM need the extras, which come with the tests' environment.
DEMO_NEEDS = $(if $(or $(findstring tpm,$(DEMO_FLAGS)),$(findstring pkcs11,$(DEMO_FLAGS)),$(findstring remote,$(DEMO_FLAGS))),.dev,.runtime)

demo: $(VENV)/$(DEMO_NEEDS) ## provision one M2M device end to end, every message and check real
	@$(BIN)/m2m-demo $(DEMO_FLAGS)

test: $(VENV)/.dev ## every test this machine can run (those that need Docker: make test-docker)
	$(BIN)/pytest -n 2 --dist loadfile -m "not docker" $(PYTEST_FLAGS)

check: $(VENV)/.dev ## formatting, lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-docker: $(VENV)/.dev ## build the image, bring all actors up, test them from outside, take them down
	PYTEST=$(CURDIR)/$(BIN)/pytest docker/test.sh

FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

fuzz: $(VENV)/.fuzz ## coverage-guided fuzzing of all decoders, FUZZ_SECONDS for each (FUZZ_TARGETS="xml wbxml" picks some)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

mutations: $(VENV)/.dev ## take each security check out of a copy, one at a time, and see that a test misses it
	$(BIN)/python -m tests.attacks.mutations

lock: ## renew constraints.txt from what pyproject.toml allows today
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install -q -e '.[dev,fuzz,pkcs11,tpm]'
	( sed -n '1p' constraints.txt; $(VENV)-lock/bin/pip freeze --exclude-editable ) > constraints.new
	mv constraints.new constraints.txt && rm -rf $(VENV)-lock

clean: ## remove what the targets above made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=… picks one)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu install python3-venv"; rm -rf $(VENV); exit 1; }

# The stamps make installs happen once, and again when what they came from changes.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(DEV_EXTRAS)]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(DEV_EXTRAS),fuzz]'
	@touch $@ $(VENV)/.dev $(VENV)/.runtime
