# `make demo` and `make test` set up .venv by themselves; a set-up cut short is finished by calling again.
PYTHON ?= python3

.PHONY: demo test test-lowest bench lint clean

demo: .venv/ready
	.venv/bin/python -m shared_eval.reproduce demo

test: .venv/ready
	.venv/bin/python -m pytest -n 2

# A look in under two minutes: make bench BENCH=--quick
bench: .venv/bench
	.venv/bin/python -m benchmarks $(BENCH)

# The oldest releases that pyproject.toml allows of what it names.
test-lowest: .venv-lowest/ready
	PYTHONPATH=$(CURDIR) .venv-lowest/bin/python -m pytest -n 2 tests/core tests/graph tests/image tests/sentence

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch .venv/ready

# Of lightly the losses alone are wanted, which need nothing that it depends on. Its dependency
# pytorch-lightning has had compromised releases and must never be installed: hence --no-deps.
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
