# The front door. It needs GNU make and Python 3.10 or newer, nothing else; `make` alone says what
# there is. Paths are relative on purpose: make cannot name a target in a folder with a space.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

# Taken as they are typed ($(value …): make expands nothing in them) and handed over in the
# environment, where launcher/make_run.py reads them: no shell ever sees them.
override STAGES := $(value STAGES)
override RECIPE := $(value RECIPE)
override CLUSTER := $(value CLUSTER)
override CONTAINER := $(value CONTAINER)
override ARGS := $(value ARGS)
export STAGES RECIPE CLUSTER CONTAINER ARGS

# What was given as NAME=value after `make` and is none of these is a slip of the pen. A make that
# calls this one passes its own variables on in the same way: they are none of our business.
VARIABLES := STAGES RECIPE CLUSTER CONTAINER ARGS PYTHON MAKEFLAGS SHELL
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name)))
UNKNOWN_VARIABLES := $(if $(filter 0,$(MAKELEVEL)),$(filter-out $(VARIABLES),$(GIVEN)))

.DEFAULT_GOAL := help
.PHONY: help run test targets lint format env dev-env lock clean known-variables

define HELP
make run      run a recipe's stages as jobs, follow them, show results and error rates
                STAGES="train infer"    which stages; the recipe's own choice when left out
                RECIPE=egs3/fsdd/asr    folder with a run.py; egs3/mini_an4/asr when left out
                CLUSTER=local           where jobs run
                CONTAINER=none          what stages run in
                ARGS="--training_config conf/training.yaml stop_grace_s=30"
                                        more flags for run.py, settings of the launcher
make test     run the test suite; ARGS="-k launcher -m 'not slow'" goes to pytest
make targets  hold the project to its figures: 25 minutes of an idle machine
make lint     check style and types
make format   put the code into the project's format
make env      only make .venv, which the others do when it is needed
make lock     resolve requirements/*.in anew into requirements/*.lock
make clean    remove .venv and caches; data, experiments and launch records stay

PYTHON=python3.12 picks the Python that .venv is made with.
endef

help:
	$(info $(HELP))
	@:

run: env
	@$(VENV_PYTHON) -m launcher.make_run

test: dev-env
	@$(VENV_PYTHON) -m launcher.make_run pytest

targets: override ARGS := -m target -v
targets: test

lint: dev-env
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

format: dev-env
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

env: known-variables
	@$(PYTHON) requirements/make_env.py run

dev-env: known-variables
	@$(PYTHON) requirements/make_env.py dev

known-variables: export UNKNOWN_VARIABLES := $(UNKNOWN_VARIABLES)
known-variables:
	@$(if $(UNKNOWN_VARIABLES),$(PYTHON) -m launcher.make_run unknown-variables,:)

COMPILE := $(VENV_PYTHON) -m uv pip compile --quiet --universal --python-version 3.10 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header --excludes excluded.txt

lock: dev-env
	cd requirements && ../$(COMPILE) --upgrade run.in -o run.lock
	cd requirements && ../$(COMPILE) --upgrade dev.in -o dev.lock

clean: known-variables
	@$(PYTHON) requirements/make_env.py clean
