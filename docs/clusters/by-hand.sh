#!/usr/bin/env bash
# A Ray cluster by hand: `by-hand.sh head` on one node, `by-hand.sh join HEAD_ADDRESS` on each of the others, with the same
# RAY_AUTH_TOKEN on all. Then, on the head: python -m launch.sweep ... cluster=gpu
set -euo pipefail
: "${RAY_AUTH_TOKEN:?the same secret on every node: export RAY_AUTH_TOKEN=\$(openssl rand -hex 32)}"
export RAY_AUTH_MODE=token
case "${1:-}" in
  head) exec ray start --head --port=6379 --include-dashboard=false --block ;;
  join) exec ray start --address="${2:?address of the head}:6379" --block ;;
  *) echo "usage: $0 head | join HEAD_ADDRESS" >&2; exit 2 ;;
esac
