# python3 (3.11 or newer) and make are all that is needed; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock
# More than there are cores: some tests wait for processes, browsers and clocks.
PROCESSES ?= 3
# Neighbours stay together, as tests of a file share what they read; who has none left takes some.
PYTEST = $(RUN)/python -m pytest -rs --dist worksteal -n
# Or each process compiles all tests again.
test test-faults test-long reliability: export PYTHONDONTWRITEBYTECODE =

.PHONY: install demo test test-faults test-long reliability up lint bench help

help:
	@echo "make install    the product in .venv, so that .venv/bin/prepaid works"
	@echo "make demo       sample data through the whole process, to an opened report"
	@echo "make up         Dagster UI and daemon on the embedded database, until Ctrl-C"
	@echo "make test       the tests of every day, in minutes; a few faults are among them"
	@echo "make test-faults  faults for real: processes killed, disks full, clocks wrong"
	@echo "make test-long  all tests, also those that take minutes each"
	@echo "make reliability  every fault for real; figures into docs/reliability.md"
	@echo "make lint       format, style, types, module dependencies"
	@echo "make bench      how fast it is, against plain SQL that writes the same rows"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make install PYTHON=python3.12)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "python3-venv is missing. Install it (Debian, Ubuntu: apt-get install python3-venv), then again."; exit 1; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed
	$(PIP) --editable '.[test,lint]'
	@touch $@

demo: install
	$(RUN)/prepaid demo

up: install
	@exec $(RUN)/prepaid up

test: $(VENV)/.installed-test
	$(PYTEST) $(PROCESSES) -m "not long and (smoke or not fault)"

test-faults: $(VENV)/.installed-test
	$(PYTEST) 3 -m "fault and not long" tests/faults

test-long: $(VENV)/.installed-test
	$(PYTEST) $(PROCESSES) --hypothesis-profile long

# The figures are written also when a test fails: violations are in them.
reliability: FIGURES := $(abspath $(VENV))/fault_figures.jsonl
reliability: $(VENV)/.installed-test
	rm -f $(FIGURES) && touch $(FIGURES)
	PREPAID_FAULT_FIGURES=$(FIGURES) $(RUN)/python -m pytest -rs -m fault; status=$$?; \
	  $(RUN)/python -m tests.faults.page $(FIGURES) && exit $$status

lint: $(VENV)/.installed-lint
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/lint-imports --no-logo

bench: install
	$(RUN)/python -m benchmarks.renewals
	$(RUN)/python -m benchmarks.revenue
	$(RUN)/python -m benchmarks.loading
	$(RUN)/python -m benchmarks.desk
	$(RUN)/python -m benchmarks.mails
