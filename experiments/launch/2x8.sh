#!/bin/bash
# Train on two machines with eight GPUs each; the same line on both, MEET_AT being one of them:
#
#   MEET_AT=first:29500 experiments/launch/2x8.sh workbench train experiments/phase3.yaml --step train
#
# Its variables, PROCESSES among them, are those of train.sh. MACHINES=1:2 goes on with one machine
# where the other is lost, unless that is the one at which they meet.
set -euo pipefail
export MACHINES=${MACHINES:-2} PROCESSES=${PROCESSES:-8}
exec bash "$(dirname "$0")/train.sh" "$@"
