#!/bin/bash
# What the batch scripts have in common; they source it, their arguments are the command.
#
# Each machine runs one train.sh, which starts the command once per GPU. Two minutes before the time
# is up SLURM sends USR1: training writes a checkpoint and ends, and the job goes back into the
# queue; when it is preempted, too, where SLURM has PreemptParameters=send_user_signal. Otherwise
# SLURM itself puts back what is preempted or has lost a machine (--requeue). Either way the next
# start goes on from the last checkpoint. What fails more often than RESTARTS allow is not put back.

if [ "$#" -eq 0 ]; then
  echo "usage: sbatch [OPTION ...] experiments/launch/1x4.sbatch COMMAND [ARGUMENT ...]" >&2
  exit 2
fi

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
# two jobs on one machine must not meet
port=$((20000 + SLURM_JOB_ID % 20000))
export MACHINES=$SLURM_NNODES RUN=$SLURM_JOB_ID MEET_AT="${hosts%%$'\n'*}:$port"

time_is_up=
srun --kill-on-bad-exit=1 bash "$SLURM_SUBMIT_DIR/experiments/launch/train.sh" "$@" &
step=$!
trap 'time_is_up=yes; kill -TERM "$step" || true' USR1
trap 'kill -TERM "$step" || true' TERM

# a signal ends `wait` before the step has ended
while status=0; wait "$step" || status=$?; kill -0 "$step" 2>/dev/null; do :; done
if [ -n "$time_is_up" ] && [ "$status" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
