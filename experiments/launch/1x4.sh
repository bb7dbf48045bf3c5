#!/bin/bash
# Train on one machine with four GPUs:
#
#   experiments/launch/1x4.sh workbench train experiments/phase2.yaml --step train
#
# Its variables, PROCESSES among them, are those of train.sh.
set -euo pipefail
export PROCESSES=${PROCESSES:-4}
exec bash "$(dirname "$0")/train.sh" "$@"
