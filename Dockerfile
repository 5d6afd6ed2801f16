# For a machine with NVIDIA GPUs: docker build -t open-r1-med . && docker run --rm --gpus all open-r1-med --help
# Data and checkpoints come from outside: -v "$PWD/data:/app/data" -v "$PWD/checkpoints:/app/checkpoints"
# The development image has the compiler that flash-attn and DeepSpeed's kernels are built with.
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1 \
    UV_COMPILE_BYTECODE=1 \
    VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git ninja-build python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 trainer \
    && install --directory --owner trainer /app /opt/venv

USER 10001
WORKDIR /app
RUN python3.12 -m venv /opt/venv && pip install uv==0.13.9

# The packages first: they change less often than the code.
COPY --chown=trainer requirements.txt pyproject.toml README.md setup.sh ./
RUN uv pip install -r requirements.txt

# No GPU is visible while an image is built, so flash-attn is not left to setup.sh --gpu, which would skip it.
ARG FLASH_ATTN=true
ARG MAX_JOBS=4
RUN if [ "$FLASH_ATTN" = true ]; then \
      uv pip install setuptools wheel packaging ninja && uv pip install --no-build-isolation "flash-attn>=2.8"; \
    fi

COPY --chown=trainer . .
RUN uv pip install --no-deps --editable .

ENTRYPOINT ["torchrun"]
CMD ["--standalone", "--nproc_per_node=gpu", "src/open_r1/grpo_vqa_nothink.py", "--help"]
