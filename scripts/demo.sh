#!/usr/bin/env bash
# A three-node Patroni cluster with weir in front, from one command: scripts/demo.sh
# Other commands: switchover, crash, status, stop, drill; scripts/demo.sh help explains them.
set -euo pipefail

cd "$(dirname "$0")/.."
tool=target/release/weir-cluster

build() {
    # rustup's default place is not always in the path of a fresh shell.
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || {
        echo "Rust is missing: see https://www.rust-lang.org/tools/install" >&2
        exit 1
    }
    unset CARGO_TARGET_DIR
    cargo build --release --locked -p weir -p weir-cluster
}

case ${1:-up} in
up | drill)
    scripts/install.sh
    build
    ;;
*)
    [ -x "$tool" ] || build
    ;;
esac
exec "$tool" "$@"
