#!/bin/bash
# One node's part of train.sbatch and train_vllm.sbatch: a task of a SLURM step, of which each node has one.
#   on_node.sh train ADDRESS PORT SCRIPT FLAGS...    the training processes of this node
#   on_node.sh serve COMMAND...                      the server that samples
# Ends with 75 if SLURM asked it to stop (USR2: the time is nearly over; TERM: another job takes the nodes), and GRACE
# seconds (10) after its command if that failed.
set -u

role=$1
shift
if [ "$role" = serve ]; then
  command=("$@")
elif [ -n "${ACCELERATE_CONFIG:-}" ]; then
  command=(python -m accelerate.commands.launch --config_file "$ACCELERATE_CONFIG" --rdzv_backend static
    --num_machines "$SLURM_STEP_NUM_NODES" --num_processes "$((SLURM_STEP_NUM_NODES * PROCESSES))"
    --machine_rank "$SLURM_PROCID" --main_process_ip "$1" --main_process_port "$2" "${@:3}")
else
  command=(python -m torch.distributed.run --nnodes "$SLURM_STEP_NUM_NODES" --nproc_per_node "$PROCESSES"
    --node_rank "$SLURM_PROCID" --master_addr "$1" --master_port "$2" "${@:3}")
fi

# SLURM signals every process of the step. torchrun must outlive that, since it kills its processes 30 seconds after a
# SIGTERM, in which time a step may not end. USR1 lets the training processes, its children, save after their step.
export PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP,SIGQUIT
stopped=false
# shellcheck disable=SC2317,SC2329  # the trap calls it
stop() {
  stopped=true
  if [ "$role" = train ]; then
    echo "$SLURMD_NODENAME: asked to stop; the training saves after its step"
    pkill -USR1 --parent "$child"
  fi
}
(trap '' TERM USR2 && exec "${command[@]}") &
child=$!
trap stop TERM USR2

code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do # a signal has interrupted the waiting
  code=0
  wait "$child" || code=$?
done

if [ "$code" -ne 0 ]; then
  if "$stopped"; then code=75; fi
  sleep "${GRACE:-10}" # with the first task that fails SLURM kills the others, which may still have something to say
fi
exit "$code"
