# demo: the whole story on a laptop; test, check: all there is to know. Each sets up what it needs.
ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PYTHON := $(ENVIRONMENT)/bin/python
STAMP := $(ENVIRONMENT)/.open-r1-installed

.PHONY: demo demo-text test check setup
.DEFAULT_GOAL := help

help:
	@echo "make demo    draw phantoms, train the tiny base with GRPO, evaluate before and after"
	@echo "make demo-text   the same with a tiny text model and made-up questions without pictures"
	@echo "make test    run the tests"
	@echo "make check   ruff, format, pyright"
	@echo "make setup   install into the active environment or .venv (bash setup.sh)"

$(STAMP): requirements.txt pyproject.toml setup.sh
	bash setup.sh
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(PYTHON) scripts/demo.py --overwrite $(DEMO_ARGS)

demo-text: $(STAMP)
	$(PYTHON) scripts/demo_text.py --overwrite $(DEMO_ARGS)

# One thread per process: with both cores busy, more threads only spin.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -q $(TEST_ARGS)

check: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
