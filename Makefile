# `make demo` and `make test` set up .venv by themselves; a set-up cut short is finished by calling again.
PYTHON ?= python3

.PHONY: demo test lint clean

demo: .venv/ready
	.venv/bin/python -m shared_eval.reproduce demo

test: .venv/ready
	.venv/bin/python -m pytest -n 2

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch .venv/ready

clean:
	rm -rf .venv build *.egg-info
