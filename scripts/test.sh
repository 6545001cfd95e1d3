#!/usr/bin/env bash
# Everything CI runs: format, lints, docs, licences, then all tests, the end-to-end ones against real PostgreSQL,
# Patroni, PgBouncer and drivers included. On a bare Debian with Rust (as root) it installs what is missing.
#   scripts/test.sh            everything
#   scripts/test.sh quick      without the end-to-end tests and without installing anything
# Ends with the test runner's counts; the first failing step ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=false
case ${1:-} in
  "") ;;
  quick) quick=true ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# Two thousand idle clients have two ends.
ulimit -n "$(ulimit -H -n)"
PATH=$PWD/target/tools/bin:$PATH

# What packages have beside the default build, which the lints look at.
features=(--features "weir/ldap,weir/pam")

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Debian has no package of these; an unoptimised build of each takes one to two minutes, once.
cargo_tool() {
  have "$1" || cargo install --quiet --debug --locked --root target/tools --version "$2" "$1"
}

lint() {
  step "format"
  cargo fmt --all --check
  step "clippy"
  cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
  cargo clippy --quiet -p weir-runtime --all-targets --features ldap,pam --locked -- -D warnings
  step "docs"
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items --locked
  if have shellcheck; then
    step "shell scripts"
    shellcheck .ci/run scripts/*.sh tests/drivers/*.sh fuzz/*.sh
  fi
  if have cargo-deny; then
    # The advisory database lives outside every registry; who has it runs `cargo deny check advisories` as well.
    step "licences, bans, sources"
    cargo deny --offline check --hide-inclusion-graph bans licenses sources
  fi
}

build() {
  step "build"
  cargo build --quiet --locked -p weir "${features[@]}"
  cargo test --quiet --workspace --locked "${features[@]}" --no-run
}

# With nextest every test is a process of its own and a hanging one is ended. Without it, end-to-end tests run one
# after the other, so that a cluster has the machine to itself.
run_tests() {
  step "doc tests"
  cargo test --quiet --workspace --locked "${features[@]}" --doc
  step "tests"
  if have cargo-nextest; then
    cargo nextest run --locked --no-tests pass "${features[@]}" "$@"
  else
    cargo test --locked "${features[@]}" "$@" -- --test-threads 1 2>&1 | tee target/test.log
    awk '/^test result:/ { p += $4; f += $6; i += $8 }
      END { printf "total: %d passed; %d failed; %d ignored\n", p, f, i }' target/test.log
  fi
}

if ! $quick; then
  step "install"
  # By command where a machine may have it from elsewhere, by package where only Debian's will do.
  packages=(slapd libpam0g-dev libpostgresql-jdbc-java golang-github-lib-pq-dev golang-github-jackc-pgx-v4-dev python3-venv)
  have shellcheck || packages+=(shellcheck)
  have g++ || packages+=(g++)
  have npm || packages+=(nodejs npm)
  have go || packages+=(golang-go)
  have javac || packages+=(default-jdk-headless)
  [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
  scripts/install.sh "${packages[@]}"
  cargo_tool cargo-deny 0.20.2
  cargo_tool cargo-nextest 0.9.143
fi
lint
build
if $quick; then
  run_tests --workspace --exclude weir-e2e --exclude weir-cluster
else
  step "fuzzing"
  scripts/fuzz.sh 5
  step "drivers"
  tests/drivers/run.sh prepare
  run_tests --workspace
fi
