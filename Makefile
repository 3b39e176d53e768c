# Each target sets up what it needs: a virtual environment in .venv with the package and its test tools.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What the environment takes on Linux with a CUDA build of torch; asked for before anything is downloaded.
ROOM_GB ?= 10
# On a machine with an NVIDIA GPU and no CUDA compiler, PyPI's: gsplat's kernels are built with it.
EXTRAS ?= dev,salience$(shell test -e /dev/nvidiactl && ! command -v nvcc > /dev/null 2>&1 && echo ,cuda)
DATA ?=
OUT ?= demo_output

# Torch's threads then sleep while they wait, instead of taking the cores from the rasterizer's.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo              a synthetic clip from video to splat, measured against its truth (8 minutes on 2 cores)"
	@echo "make demo DATA=my.mp4  the same on your own clip, without the truth columns"
	@echo "make test              linters, type checker and the whole test suite"

$(VENV)/.installed: pyproject.toml das3r_ns/__init__.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else "das3r_ns needs Python 3.10 to 3.12, %s is %d.%d: make PYTHON=python3.11 ..." % (sys.executable, *v))'
	@test -d $(VENV) || $(PYTHON) -c 'import os, shutil, sys; folder = os.path.dirname(os.path.abspath("$(VENV)")); gb = shutil.disk_usage(folder).free / 1e9; sys.exit(None if gb > $(ROOM_GB) else "%.1f GB are free in %s, and nerfstudio, torch and the rest take $(ROOM_GB) GB: make room, or name another place with make VENV=FOLDER/.venv" % (gb, folder))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing nerfstudio, gsplat, torch and the rest: several GB, some minutes"
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/das3r demo --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/python -m pip check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
