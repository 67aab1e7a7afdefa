# The habits of this project. `make` alone prints them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin
NOTEBOOKS = $(wildcard nbs/*.ipynb)
SECONDS ?= 60
JOBS ?= 3  # files of tests at a time: they wait more than they compute
# some hundred processes are started, so let Python keep what it compiles, whatever the environment says
export PYTHONDONTWRITEBYTECODE =

help:      ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv/run  ## shake hands with ourselves over loopback: two processes, real UDP, fresh keys
	$(BIN)/python -m ike_lit.initiator --demo

quick: .venv/dev  ## lint, types, every cell of every chapter, and the tests (those with strongSwan want its packages: docs/verified.md)
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -q --nbval nbs/
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile tests/

test:      ## all of it: bring what the tests need where that is possible, then quick, then the tests of ESP
	tests/whole

vm: .venv/dev  ## the tests of ESP: in a VM whose kernel has it, with strongSwan, libreswan and OpenIKED
	tests/vm/fetch
	tests/vm/run -t 2400 -o .vm/out env CI="$(CI)" LEFT_OUT=/vm/left-out tests/vm/tests $(wildcard tests/test_kernel*.py)

fresh:     ## make demo and make test in a Debian that has nothing else: as a user who may install nothing, then as root
	tests/fresh

lab: .venv/dev  ## open the chapters in JupyterLab
	$(BIN)/jupyter lab --notebook-dir nbs

docs: .venv/dev  ## build the book as a site, to be read from docs/_build/html/index.html
	mkdir -p docs/_build/source
	$(BIN)/python -m sphinx -qW --keep-going -c docs docs/_build/source docs/_build/html

export: .venv/dev  ## write ike_lit/*.py from the chapters
	$(BIN)/nbdev-export

refresh: export  ## run all chapters again and store their outputs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter execute --inplace $(NOTEBOOKS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter nbconvert --coalesce-streams $(NOTEBOOKS)
	$(BIN)/nbdev-clean

fuzz: .venv/dev  ## fuzz parser, SK, engine, explain and what people write, each for SECONDS=60
	$(BIN)/python tests/fuzz --seconds $(SECONDS) --keep .fuzz

bench: .venv/dev  ## measure against bare primitives, scapy and strongSwan, for some minutes; kept in nbs/measured
	$(BIN)/python tests/bench/bench.py
	$(BIN)/python tests/bench/rivals.py
	$(BIN)/python tests/bench/scale.py
	KEEP=flood $(BIN)/pytest -q tests/test_flood.py -k program
	$(BIN)/python tests/bench/plot.py

mitm: .venv/dev  ## 100,000 handshakes with an attacker in between; goes on where it has stopped (RUNS=1000: fewer)
	$(BIN)/python tests/mitm.py --runs $(or $(RUNS),100000) --processes 2 --state .mitm.json

mutants: .venv/dev  ## break the engine in one place at a time: which breaks does no test notice? (MODULES=nat: of this)
	$(BIN)/python tests/mutants.py $(MODULES)

clean:     ## remove what the other habits have made, the virtual environment too
	rm -rf .venv .vm .fuzz .mitm.json .mutants.json build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis nbs/.ipynb_checkpoints
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/run: settings.ini setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/dev: .venv/run
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -c 'import zmq' 2>/dev/null || { echo 'Jupyter needs the library of C++: apt-get install libstdc++6' >&2; exit 1; }
	touch $@

.PHONY: help demo quick test vm fresh lab docs export refresh fuzz bench mitm mutants clean
