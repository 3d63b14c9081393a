# Every target sets up .venv by itself; if that is interrupted, call it again.
PYTHON ?= python3

# Into the environment in the target's folder. Without --no-compile pip also compiles what is never imported.
PIP = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
UV = $(@D)/bin/uv pip install --quiet --python $(@D)/bin/python

.PHONY: demo test test-all test-lowest test-wheel bench docs docs-serve lint clean

# Its nine runs get a core each, as many at a time as there are cores.
demo: .venv/ready
	.venv/bin/python -m shared_eval.reproduce demo --jobs 9

# 8 minutes on two cores, with the real data sets.
test: .venv/ready
	.venv/bin/python -m pytest -n 2 -m "not slow and not faults"

test-all: .venv/ready
	.venv/bin/python -m pytest -n 2

# In under two minutes, at small sizes: make bench BENCH=--quick
bench: .venv/bench
	.venv/bin/python -m benchmarks $(BENCH)

# With the lowest versions that pyproject.toml allows.
test-lowest: .venv-lowest/ready
	PYTHONPATH=$(CURDIR) .venv-lowest/bin/python -m pytest -n 2 -m "not slow and not faults" \
		tests/core tests/graph tests/image tests/sentence \
		tests/shared_eval/test_statistics.py tests/shared_eval/test_summary.py tests/shared_eval/test_tables.py

# The wheel without the checkout, then the tests of the losses with the lowest PyTorch that they support.
test-wheel: .venv-wheel/ready
	cd / && $(CURDIR)/.venv-wheel/bin/python -I $(CURDIR)/tests/check_wheel.py
	PYTHONPATH=$(CURDIR) .venv-wheel/bin/python -m pytest --noconftest -n 2 -m "not distributed and not gpu" \
		--ignore tests/core/losses/test_sentence_transformers.py tests/core/losses

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# NO_MKDOCS_2_WARNING: its authors announce other products at every build. With --quiet nothing is strict.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

docs-serve: .venv/docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs serve

.venv/docs: .venv/ready
	$(PIP) -e '.[docs]'
	touch .venv/docs

.venv/ready: Makefile pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(PIP) -e '.[test,dev]'
	touch .venv/ready

# --no-deps: only lightly's losses are used, which need none of its dependencies. One of them,
# pytorch-lightning, has had compromised releases and must never be installed.
.venv/bench: .venv/ready
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps lightly
	touch .venv/bench

.venv-lowest/ready: Makefile pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(PIP) uv
	$(UV) --resolution lowest-direct --only-binary :all: -r pyproject.toml --extra test
	touch .venv-lowest/ready

.venv-wheel/ready: Makefile pyproject.toml $(wildcard core/losses/*)
	rm -rf build dist .venv-wheel
	$(PYTHON) -m venv $(@D)
	$(PIP) uv
	$(@D)/bin/uv build --quiet --wheel --out-dir dist .
	$(UV) --resolution lowest-direct dist/*.whl "torch>=2.4" "numpy>=1.26" "hypothesis>=6.100" \
		"pytest>=8.0" "pytest-timeout>=2.3" "pytest-xdist>=3.5" "setuptools>=77"
	touch .venv-wheel/ready

clean:
	rm -rf .venv .venv-lowest .venv-wheel build dist *.egg-info
