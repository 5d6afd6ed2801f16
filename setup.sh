#!/usr/bin/env bash
# Install everything into the active virtual or conda environment, or into a new one at .venv.
#   bash setup.sh          what training, evaluation and tests need
#   bash setup.sh --gpu    also flash-attn; where it cannot be built, flash-attn-4, which needs no compiler but a GPU of
#                          compute capability 9 or more; otherwise one line says so and SDPA is used
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

gpu=false
for argument in "$@"; do
  case "$argument" in
    --gpu) gpu=true ;;
    *) echo "setup.sh: unknown argument '$argument'; it takes --gpu or nothing" >&2; exit 2 ;;
  esac
done

python=${PYTHON:-python3}
environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -z "$environment" ]; then
  environment="$PWD/.venv"
  if [ ! -x "$environment/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "setup.sh: $("$python" --version 2>&1) is too old; Python 3.11 or newer is needed (set PYTHON=...)" >&2
      exit 2
    }
    "$python" -m venv "$environment"
  fi
fi
python="$environment/bin/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup.sh: the environment $environment has $("$python" --version 2>&1); Python 3.11 or newer is needed" >&2
  exit 2
}

# uv takes the wheels of torch in seconds; it is installed into the environment itself, nothing outside is touched.
"$python" -m uv --version >/dev/null 2>&1 || "$python" -m pip install --quiet --disable-pip-version-check uv
# compiled once here, not by the first of many short commands (or by each, where Python may not write its caches)
"$python" -m uv pip install --quiet --compile-bytecode --python "$python" -r requirements.txt -e '.[dev]'

if $gpu; then
  if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "no GPU is visible here, so flash-attn is left out; everything works with SDPA attention instead"
  elif "$python" -m uv pip install --quiet --python "$python" --no-build-isolation -e '.[gpu]' 2>.flash-attn-build.log; then
    rm -f .flash-attn-build.log
    echo "flash-attn is installed"
  elif "$python" -c 'import sys, torch; sys.exit(torch.cuda.get_device_capability() < (9, 0))' &&
    "$python" -m uv pip install --quiet --python "$python" -r requirements.txt flash-attn-4==4.0.0b36 2>>.flash-attn-build.log; then
    echo "flash-attn could not be built (.flash-attn-build.log says why); flash-attn-4 is installed instead: --attn_implementation flash_attention_4"
  else
    echo "flash-attn could not be built (.flash-attn-build.log says why); everything works with SDPA attention instead"
  fi
fi
echo "ready: $environment"
