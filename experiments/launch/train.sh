#!/bin/bash
# Start a command in several processes that train together, on one machine or on several.
#
#   PROCESSES=2 experiments/launch/train.sh workbench train experiments/phase2.yaml --step train
#
#   PROCESSES   per machine, one per GPU (default 1)
#   MACHINES    how many; 1:2 goes on with one where the other is lost (default 1)
#   MEET_AT     host:port of one of them, which all others can reach; with several machines
#   RUN         name of the job, the same on all machines (default workbench)
#   RESTARTS    how often processes that died are started anew (default 3)
#   DRY_RUN     if set, the command is shown and not run
#
# With several machines the same line is run on each of them, and the folder of the store must be
# one that all see. A process that dies takes the others along; torchrun starts all of them anew,
# and they go on from the last checkpoint. Told to terminate, they write one and end.
set -euo pipefail

if [ "$#" -eq 0 ]; then
  echo "usage: [PROCESSES=4] [MACHINES=2 MEET_AT=HOST:PORT] $0 COMMAND [ARGUMENT ...]" >&2
  exit 2
fi

machines=${MACHINES:-1}
meet_at=${MEET_AT:-}
where=(--standalone)
if [ "$machines" != 1 ]; then
  if [ -z "$meet_at" ]; then
    echo "$0: MACHINES is $machines; set MEET_AT=HOST:PORT to where they meet" >&2
    exit 2
  fi
  where=(--rdzv-backend c10d --rdzv-id "${RUN:-workbench}" --rdzv-endpoint "$meet_at")
fi

command=(
  torchrun
  --nnodes "$machines"
  --nproc-per-node "${PROCESSES:-1}"
  --max-restarts "${RESTARTS:-3}"
  "${where[@]}"
  --no-python "$@"
)
if [ -n "${DRY_RUN:-}" ]; then
  echo "${command[@]}"
  exit
fi
# else processes that are started anew find the addresses of the dead in torchrun's store, and wait
# for them without end (torch 2.13)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "${command[@]}"
