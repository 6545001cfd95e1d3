#!/usr/bin/env bash
# Tells the simulator's stories of many seeds on all cores (crates/weir-sim); prints how fast, stops at the first seed that
# breaks a law, and prints its story. The same seed tells the same story again, as long as the code is the same.
#   scripts/simulate.sh N [FROM]     N seeds from FROM on (0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
  '' | *[!0-9]*) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
count=$1 from=${2:-0}
# Small enough that a failure ends the run soon.
share=64

# Another build of it, such as one with a bug in it.
simulate=${SIMULATE:-}
if [ -z "$simulate" ]; then
  cargo build --quiet --locked --profile simulate -p weir-sim
  simulate=${CARGO_TARGET_DIR:-target}/simulate/simulate
fi
stories=$(mktemp -d)
trap 'rm -rf "$stories"' EXIT

# xargs starts nothing more once a command has ended with 255.
share() {
  local to=$(($1 + share))
  "$simulate" "$1" "$((to < end ? to : end))" >"$stories/$1" || exit 255
}
export -f share
export simulate stories share end=$((from + count))

begin=$(date +%s%N)
if seq "$from" "$share" "$((end - 1))" | xargs -P "$(nproc)" -I{} bash -c 'share {}' 2>/dev/null; then
  awk -v n="$count" -v ns="$(($(date +%s%N) - begin))" \
    'BEGIN { printf "%d seeds, no law broken; %.1f s, %.0f seeds/s\n", n, ns / 1e9, n / (ns / 1e9) }'
else
  story=$(find "$stories" -type f -size +0 | sort -V | head -1)
  cat "$story"
  seed=$(sed -n '1s/^seed \([0-9]*\):.*/\1/p' "$story")
  printf '\nThe same again: scripts/simulate.sh 1 %s\n' "$seed"
  exit 1
fi
