# On a fresh machine with Python only:
#   make bench   environment, install, quick sweep with its report; prints where that lies
#   make test    environment, install, the fast tests: nearly all
# Both may be repeated: what is done is not done again.

PYTHON ?=
VENV ?= .venv
PRESET ?= quick
# For bench: another suite than speed, as SUITE=quality.
SUITE ?=
OUT ?= runs/$(if $(SUITE),$(SUITE)-)$(PRESET)
JOBS ?= auto
# Further options of the sweep: make bench BENCH="--seq-len 512,1024".
BENCH ?=
# For verify-method: --short, --only NAME,…, --out FILE, --within 2h, --pairs N, --repetitions N.
VERIFY ?=
COUNT ?= 1000000
# For reference: --only NAME,…, --within 2h, --list, --machine NAME.
REFERENCE ?=
# For test: folders, files or options of pytest, as TEST="tests/results -x".
TEST ?=
# For gpu: a folder of wheels; further options, as "--limit 540": docs/gpu.md.
WHEELS ?=
GPU ?=
# The address of torch's own package index for a CPU or a given CUDA version; see the README.
TORCH_INDEX ?=
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

CANDIDATES := python3.13 python3.12 python3.11 python3 python
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
INPUTS := pyproject.toml constraints.txt
# The versions that asv's page asks for; stupidtable's is not to be had, so a later one.
PAGE_SCRIPTS := jquery@3.3.1 bootstrap@3.1.1 jquery.flot@0.8.3 flot-orderbars@1.0.0 \
  blueimp-md5@2.19.0 stupid-table-plugin@1.1.3

.DELETE_ON_ERROR:
.PHONY: bench test test-slow test-serial test-all docs verify-method reference gpu fuzz asv-page dev lint types contracts check format constraints clean help

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

bench: $(VENV)/.installed-run ## quick sweep, of four minutes at most, and report
	$(BIN)/attnbench run $(SUITE) --preset $(PRESET) $(BENCH) --resume --out $(OUT)

test: $(VENV)/.installed-test ## the fast tests, nearly all: below five minutes
	$(BIN)/pytest -n $(JOBS) -m "not slow and not serial" $(TEST)

test-slow: $(VENV)/.installed-test ## the slow ones: compilers, servers, browsers
	$(BIN)/pytest -n $(JOBS) -m "slow and not serial" $(SLOW)

test-serial: $(VENV)/.installed-test ## those of time and memory, which run alone
	$(BIN)/pytest -m serial $(SERIAL)

test-all: test test-slow test-serial ## every test: below twenty minutes

verify-method: $(VENV)/.installed-verify ## measure the method's promises, on a quiet machine: docs/method.md
	PYTHONPATH=tests/programs:tests/helpers $(BIN)/python -m verification $(VERIFY)

reference: $(VENV)/.installed-test ## measure the reference results of this machine anew: hours, resumable
	$(BIN)/python tests/programs/measure_reference.py $(REFERENCE)

gpu: ## on a CUDA machine, without network: tests and sweeps, resumable; docs/gpu.md
	$(or $(PYTHON),python3) tests/programs/measure_gpu.py $(if $(WHEELS),--wheels "$(WHEELS)") $(GPU)

fuzz: $(VENV)/.installed-test ## COUNT hostile records (a million) through the readers
	PYTHONPATH=tests/helpers $(BIN)/python tests/programs/fuzz_records.py --count $(COUNT) --jobs 2

docs: $(VENV)/.installed-test ## the site of docs/, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site lies in $(abspath site)/index.html"

asv-page: .asv/page/.installed ## from npm, what asv's site loads: for the tests that open it

.asv/page/.installed:
	npm install --no-save --no-audit --no-fund --ignore-scripts --prefix .asv/page $(PAGE_SCRIPTS)
	@touch $@

dev: $(VENV)/.installed-dev ## environment with linters and type checker

lint: $(VENV)/.installed-dev ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy

contracts: $(VENV)/.installed-dev ## import direction
	$(BIN)/lint-imports --no-cache

check: lint types contracts test ## what a change must pass: lint, types, import direction, tests

format: $(VENV)/.installed-dev ## let ruff format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: ## pin what the newest allowed versions resolve to: make constraints TORCH=2.13.0
	rm -rf $(VENV)-pin
	$(MAKE) VENV=$(VENV)-pin $(VENV)-pin/bin/python
	$(VENV)-pin/bin/python -m pip install -e ".[test,verify,dev]" "torch==$(TORCH)"
	{ sed -n '/^#/p' constraints.txt; \
	  { $(VENV)-pin/bin/python -m pip freeze --exclude-editable \
	    | grep -viE '^(#|nvidia-|cuda-|triton=|torch=)'; echo "torch==$(TORCH)"; } | sort -f; \
	} > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-pin

clean: ## remove environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .asv
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The files that have slow tests, and those with some that run alone.
SLOW = tests/system $(shell grep -rl --include="test_*.py" "mark\.slow" tests | grep -v ^tests/system)
SERIAL = $(shell grep -rl --include="test_*.py" "mark\.serial" tests)

# -- the environment -------------------------------------------------------------------------

$(VENV)/bin/python:
	@for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	  if "$$candidate" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "attnbench needs Python 3.11 or newer. Tried:" >&2; \
	  for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	    version=$$("$$candidate" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null); \
	    echo "  $$candidate: $${version:-not there}" >&2; \
	  done; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "$$found -m venv $(VENV)"; \
	"$$found" -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$$found cannot make an environment; Debian and Ubuntu: install python3-venv" >&2; \
	  exit 1; \
	}

# A package with a warning of Python's own in it, which tests take for an error.
COMPILE_AHEAD = $(BIN)/python -W ignore -m compileall -q $(VENV)/lib/python*/site-packages/torchao

$(VENV)/.installed-run: EXTRA :=
$(VENV)/.installed-test: EXTRA := [test]
$(VENV)/.installed-verify: EXTRA := [test,verify]
$(VENV)/.installed-dev: EXTRA := [test,dev]
# What one brings beyond its own: with it those are installed too.
$(VENV)/.installed-test: ALSO := $(VENV)/.installed-run
$(VENV)/.installed-verify: ALSO := $(VENV)/.installed-run $(VENV)/.installed-test
$(VENV)/.installed-dev: ALSO := $(VENV)/.installed-run $(VENV)/.installed-test

$(VENV)/.installed-%: $(INPUTS) | $(VENV)/bin/python
	@$(BIN)/python -c '$(NEW_ENOUGH)' || { \
	  echo "$(VENV) was made with a Python older than 3.11: make clean, then again" >&2; exit 1; }
	$(if $(TORCH_INDEX),$(PIP) install --no-deps --index-url "$(TORCH_INDEX)" "torch==$(TORCH)")
	# Python compiles what is imported, a small part, when it is.
	$(PIP) install --no-compile --constraint constraints.txt --editable ".$(EXTRA)"
	$(if $(EXTRA),@$(COMPILE_AHEAD))
	@touch $(ALSO) $@
