# shellcheck shell=bash
# What train.sbatch and train_vllm.sbatch share.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
most_restarts=100 # of one job: a time limit that is too short for a single step must not use the cluster for ever

PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:-}}
if [ -z "$PROCESSES" ]; then
  echo "error: this job has no GPUs; give sbatch --gpus-per-node=N, or set PROCESSES=N for a run on CPUs" >&2
  exit 2
fi
export PROCESSES
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi # srun does not take it over

# address_of NODE: where SLURM itself reaches a node
address_of() {
  scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'
}

# step NUMBER_OF_NODES NODES COMMAND...: a task on each of these nodes; when one fails the others are killed. Becomes srun,
# so that a signal reaches it, and so has to be called in a subshell.
step() {
  exec srun --nodes="$1" --ntasks="$1" --ntasks-per-node=1 --nodelist="$2" --kill-on-bad-exit=1 "${@:3}"
}

# train NUMBER_OF_NODES NODES MAIN_NODE SCRIPT FLAGS...: the step of the training; in a subshell, too
train() {
  local address=${MAIN_ADDRESS:-$(address_of "$3")} port=${MAIN_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
  step "$1" "$2" "$here/on_node.sh" train "$address" "$port" "${@:4}"
}

# finish CODE: end the job, or put it back into the queue if it was stopped, but not by its user
finish() {
  if [ "$1" -eq 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$most_restarts" ]; then
      echo "error: stopped for the ${most_restarts}th time; submit it again with a longer --time" >&2
    else
      echo "stopped, its state is saved; back into the queue"
      scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until SLURM ends this job
    fi
  fi
  exit "$1"
}
