#!/usr/bin/env bash
# weir and PgBouncer alternately behind pgbench; prints CPU per transaction, tps, p99 and memory per idle client.
#   scripts/bench.sh [--pgbouncer PATH] [--weir PATH] [--rounds N] [--seconds N] [--idle N] [--only simple|extended|prepared]
#   scripts/bench.sh logins [--rounds N] [--seconds N] [--clients N] [--users N]
# The second compares logins, all at once: how many per second, CPU each, and what connected clients notice.
# Builds weir in release. What is missing (PostgreSQL, PgBouncer) is installed by scripts/install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install.sh pgbouncer
# Two thousand idle clients have two ends.
ulimit -n "$(ulimit -H -n)"
weir=()
case " $* " in
  *" --weir"*) ;;
  *)
    cargo build --quiet --release --locked -p weir
    weir=(--weir target/release/weir)
    ;;
esac
cargo build --quiet --release --locked -p weir-e2e --bin weir-bench
exec target/release/weir-bench "${weir[@]}" "$@"
