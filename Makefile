# Two commands do everything on a fresh machine with Python >= 3.11, make and a
# compiler: `make demo` and `make test`. Each sets up its own .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint soak fuzz power clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: $(STAMP)
	$(BIN)/pytest suites/ --topology local_1p1d

# What depends on nothing runs on all cores; what starts services runs alone. With
# AGAIN=1 what failed of either (pytest's exit code 1) is named and tried once more.
FAST := $(BIN)/pytest tests/unit tests/fuzz tests/golden tests/plugin -n auto -p no:randomly -q --timeout 300
REAL := $(BIN)/pytest tests/contract tests/e2e -p no:randomly -q --timeout 900 --durations=15
ONCE_MORE = test $$?$(AGAIN) = 11 && echo "== FLAKY OR BROKEN: what failed above, once more"
test: $(STAMP) lint
	$(FAST) $(TESTFLAGS) || { $(ONCE_MORE) && $(FAST) --lf; }
	$(REAL) $(TESTFLAGS) || { $(ONCE_MORE) && $(REAL) --lf; }

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One hour of mixed load with a fault every minute. MINUTES=5 for a short one.
MINUTES ?= 60
soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) $(SOAKFLAGS)

# 20 CPU-minutes for each parser. SECONDS_EACH=60 for a short one.
SECONDS_EACH ?= 1200
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/long.py --seconds $(SECONDS_EACH)

# The fault matrix anew, then its page.
power: $(STAMP)
	$(BIN)/python benchmarks/power/run.py --again
	$(BIN)/python benchmarks/power/page.py

clean:
	rm -rf $(VENV) build dist
