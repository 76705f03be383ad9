# `make help` lists the targets.  Each one does the set-up by itself: a virtual environment in .venv, once per lock file.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PROFILE ?= tiny
PYTHON ?=
PY := .venv/bin/python
STAMP := .venv/.stamp
PHASES := $(sort $(wildcard notebooks/phase*.ipynb))
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb notebooks/peers/*.ipynb))
BENCHES := $(subst /,.,$(basename $(sort $(wildcard tvad/bench.py tvad/*/bench.py))))
# Modules whose jaxtyping shapes the tests check at run time: make test SHAPES=tvad.heatmap
SHAPES ?=
# Footage and further options of `make adapt`, and of `make demo`.
VIDEO ?=
ADAPT ?=
VIDEOS ?=
DEMO ?=
COMMA := ,
CELL_TIMEOUT ?= 300

# The kernel `python3` must be the one in .venv, not one registered in the user's home.
export JUPYTER_PREFER_ENV_PATH := 1
export MPLBACKEND ?= agg
# A reduced run must never pass for a result; `test` alone sets it.
unexport TVAD_SMOKE

.PHONY: help setup reproduce adapt demo test lint study zoo lab bench figures clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | column -t -s "$$(printf '\t')" \
	  || grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml .ci/setup
	PYTHON="$(PYTHON)" bash .ci/setup
	touch $@

setup: $(STAMP) ## the virtual environment in .venv

reproduce: $(STAMP) ## run the phases of PROFILE (default tiny) and compare their figures with the committed study
	@test -f notebooks/profiles/$(PROFILE).yaml || { \
	  echo "notebooks/profiles/$(PROFILE).yaml: no such profile; there are: $$(cd notebooks/profiles && ls | sed 's/\.yaml$$//' | xargs)" >&2; \
	  exit 2; }
	mkdir -p runs/$(PROFILE)
	for notebook in $(PHASES); do \
	  $(PY) -m papermill -k python3 -f notebooks/profiles/$(PROFILE).yaml \
	    "$$notebook" "runs/$(PROFILE)/$$(basename "$$notebook")"; \
	done
	$(PY) -m tvad.study compare --profile $(PROFILE)

adapt: $(STAMP) ## adapt the detector to the normal footage of one camera: make adapt VIDEO=folder [ADAPT="--seed 1 ..."]
	@test -n "$(VIDEO)" || { \
	  echo "make adapt: no footage given; run: make adapt VIDEO=<a video, or a folder of videos or frames, of one camera>" >&2; \
	  exit 2; }
	$(PY) -m tvad.training.adapt --video "$(VIDEO)" $(ADAPT)

demo: $(STAMP) ## the demo as a page on this machine, for the weights of PROFILE: make demo [VIDEOS=folder]
	$(PY) -m tvad.widgets --profile $(PROFILE) $(if $(VIDEOS),--videos "$(VIDEOS)") $(DEMO)

test: $(STAMP) lint ## every check: lint, tests, the notebooks at reduced size
	$(PY) -m pytest tests $(if $(SHAPES),--jaxtyping-packages=$(SHAPES)$(COMMA)beartype.beartype)
	$(if $(NOTEBOOKS),TVAD_SMOKE=1 $(PY) -m pytest --nbmake --nbmake-kernel=python3 --nbmake-timeout=$(CELL_TIMEOUT) $(NOTEBOOKS))

lint: $(STAMP) ## style of the code and hygiene of the notebooks
	$(PY) -m ruff check .
	$(PY) .ci/notebook_lint.py notebooks

study: $(STAMP) ## all seeds, controls and ablations of PROFILE (hours); rows into figures/PROFILE
	$(PY) -m tvad.study run --profile $(PROFILE) --phase all

zoo: $(STAMP) ## rebuild the tiny models in data/zoo from nothing
	$(PY) -m tvad.backbones.pretrain

lab: $(STAMP) ## JupyterLab on the notebooks
	$(PY) -m jupyterlab --notebook-dir=.

bench: $(STAMP) ## speeds, each with its regime and one JSON line
	for bench in $(BENCHES); do $(PY) -m $$bench; done

figures: $(STAMP) ## redraw figures/PROFILE from the rows and arrays in runs/PROFILE
	$(PY) -m tvad.figures --profile $(PROFILE)

clean: ## remove caches; runs/, data/ and .venv stay
	rm -rf .pytest_cache .ruff_cache .cache build tvad.egg-info runs/smoke
	find . -name .venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
