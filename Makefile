# Every target sets up .venv by itself; if that is interrupted, call it again.
PYTHON ?= python3

.PHONY: demo test test-all test-lowest bench lint clean

# Its nine runs get a core each, as many at a time as there are cores.
demo: .venv/ready
	.venv/bin/python -m shared_eval.reproduce demo --jobs 9

# Under 5 minutes on two cores.
test: .venv/ready
	.venv/bin/python -m pytest -n 2 -m "not slow and not faults"

test-all: .venv/ready
	.venv/bin/python -m pytest -n 2

# In under two minutes, at small sizes: make bench BENCH=--quick
bench: .venv/bench
	.venv/bin/python -m benchmarks $(BENCH)

# With the lowest versions that pyproject.toml allows.
test-lowest: .venv-lowest/ready
	PYTHONPATH=$(CURDIR) .venv-lowest/bin/python -m pytest -n 2 \
		tests/core tests/graph tests/image tests/sentence

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch .venv/ready

# --no-deps: only lightly's losses are used, which need none of its dependencies. One of them,
# pytorch-lightning, has had compromised releases and must never be installed.
.venv/bench: .venv/ready
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps lightly
	touch .venv/bench

.venv-lowest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --only-binary :all: -r pyproject.toml --extra test
	touch .venv-lowest/ready

clean:
	rm -rf .venv .venv-lowest build *.egg-info
