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

# Of the rehearsal cluster. Its folder is known to the tests too; when none is named, nothing is said.
override ACCOUNTING := $(value ACCOUNTING)
override PURGE := $(value PURGE)
override REHEARSAL_DIR := $(value REHEARSAL_DIR)
$(if $(REHEARSAL_DIR),$(eval export REHEARSAL_DIR))

# Of the environment with upstream's framework. Again, none is not the empty one.
override PYTHON312 := $(value PYTHON312)
override UPSTREAM_ENV := $(value UPSTREAM_ENV)
$(if $(PYTHON312),$(eval export PYTHON312))
$(if $(UPSTREAM_ENV),$(eval export UPSTREAM_ENV))

# Of the image that is built. They count after `make` only: NAME is set on many a machine.
of_command_line = $(if $(findstring command,$(origin $(1))),$(value $(1)))
IMAGE_NAME := $(or $(call of_command_line,NAME),cpu)
IMAGE_BASE := $(call of_command_line,BASE)
$(foreach name,NAME BASE,$(if $(call of_command_line,$(name)),$(eval override $(name) := $$(value $(name)))))

# What was given as NAME=value after `make` and is none of these is a slip of the pen. A make that
# calls this one passes its own variables on in the same way: they are none of our business.
VARIABLES := STAGES RECIPE CLUSTER CONTAINER ARGS ACCOUNTING PURGE REHEARSAL_DIR PYTHON312 UPSTREAM_ENV NAME BASE \
	PYTHON MAKEFLAGS SHELL
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name)))
UNKNOWN_VARIABLES := $(if $(filter 0,$(MAKELEVEL)),$(filter-out $(VARIABLES),$(GIVEN)))

.DEFAULT_GOAL := help
.PHONY: help run test faults targets test-upstream upstream-env image cluster-up cluster-down bench docs lint format env dev-env lock clean known-variables

define HELP
make run      run a recipe's stages as jobs, follow them, show results and error rates
                STAGES="train infer"    which stages; the recipe's own choice when left out
                RECIPE=egs3/fsdd/asr    folder with a run.py; egs3/mini_an4/asr when left out
                CLUSTER=local           where jobs run: local, slurm, debug
                CONTAINER=auto          what stages run in: docker, apptainer, …, none
                ARGS="--training_config conf/training.yaml stop_grace_s=30"
                                        more flags for run.py, settings of the launcher
make test     run the test suite; ARGS="-k launcher -m 'not slow'" goes to pytest
make faults   break what launches rest on, with the cluster up; print what was survived
make targets  hold the project to its figures: 25 minutes of an idle machine
make test-upstream
              launch a recipe of upstream's ESPnet3 as PyPI ships it; fetches gigabytes once
                PYTHON312=/path         its Python 3.12; python3.12 when left out
                UPSTREAM_ENV=/path      where they are kept; a folder of your cache when left out
make image    build the image that stages run in, with Docker or Podman
                NAME=cpu                cpu or gpu
                BASE=REFERENCE          another base image than that of containers/cpu/image.yaml
make cluster-up
              as root on Debian 12: SLURM, Docker, Podman, Apptainer and a registry to rehearse with
                ACCOUNTING=yes          a second SLURM, which keeps accounts (sacct)
                REHEARSAL_DIR=/path     where all of it lives; /var/lib/launcher-rehearsal
make cluster-down
              stop what cluster-up started; PURGE=yes removes downloads and images too
make bench    what the launcher costs, as ratios to the bare tools (with the cluster up)
make docs     build docs/ as a site into site/; a link that leads nowhere is refused
make lint     check style and types
make format   put the code into the project's format
make env      only make .venv, which the others do when it is needed
make lock     resolve requirements/*.in anew into the locks there and in containers
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

faults: override ARGS := -m faults
faults: test

targets: override ARGS := -m target -v
targets: test

upstream-env: known-variables
	@$(PYTHON) tests/upstream/environment.py

test-upstream: override ARGS := -m upstream -v
test-upstream: dev-env upstream-env
	@$(VENV_PYTHON) -m launcher.make_run pytest

image: export IMAGE_NAME := $(IMAGE_NAME)
image: export IMAGE_BASE := $(IMAGE_BASE)
image: env
	@$(VENV_PYTHON) -m launcher.make_run image

cluster-up cluster-down: export ACCOUNTING := $(ACCOUNTING)
cluster-up cluster-down: export PURGE := $(PURGE)

cluster-up: known-variables
	@$(PYTHON) tests/cluster/rehearsal/up.py

cluster-down: known-variables
	@$(PYTHON) tests/cluster/rehearsal/down.py

bench: dev-env
	$(VENV_PYTHON) tests/bench/bench_startup.py
	$(VENV_PYTHON) tests/bench/bench_submission.py

docs: dev-env
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict
	@echo site/index.html

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

# Of the images: one Python, one platform, one build of torch, and the versions of run.lock.
COMPILE_IMAGE := $(VENV_PYTHON) -m uv pip compile --quiet --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-annotate \
	--no-header --constraints run.lock
CPU_TORCH := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu)

lock: dev-env
	cd requirements && ../$(COMPILE) --upgrade run.in -o run.lock
	cd requirements && ../$(COMPILE) --upgrade dev.in -o dev.lock
	cd requirements && ../$(COMPILE_IMAGE) --upgrade $(CPU_TORCH) run.in torch.txt -o ../containers/cpu/requirements.lock
	cd requirements && ../$(COMPILE_IMAGE) --upgrade run.in torch.txt -o ../containers/gpu/requirements.lock

clean: known-variables
	@$(PYTHON) requirements/make_env.py clean
