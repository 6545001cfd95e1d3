#!/usr/bin/env bash
# Plants known bugs in a copy of weir, one at a time, and lets the simulator look for each: prints the first seed that finds
# it and the law that it breaks. Ends with 1 if a bug stays hidden.
#   scripts/mutate.sh [N [BUG ...]]     at most N seeds for each bug (2000); the bugs are crates/weir-sim/bugs/BUG.patch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-2000} in
  *[!0-9]*) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
count=${1:-2000}
shift || true
bugs=("$@")
if [ ${#bugs[@]} = 0 ]; then
  for patch in crates/weir-sim/bugs/*.patch; do bugs+=("$(basename "$patch" .patch)"); done
fi

here=$PWD copy=$PWD/target/bugs/weir
rm -rf "$copy"
mkdir -p "$copy"
git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents -P -p -t "$copy"
export CARGO_TARGET_DIR=$here/target/bugs/target
# Slower stories than in the simulator's own profile, but sooner built.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0

hidden=0
for bug in "${bugs[@]}"; do
  patch -d "$copy" -p1 -s --no-backup-if-mismatch <"crates/weir-sim/bugs/$bug.patch"
  cargo build --quiet --locked --manifest-path "$copy/Cargo.toml" -p weir-sim 2>/dev/null
  found=$(SIMULATE=$CARGO_TARGET_DIR/debug/simulate scripts/simulate.sh "$count" | head -1 | cut -c1-120) || true
  case $found in
    "seed "*) ;;
    *) hidden=1 found="HIDDEN: $found" ;;
  esac
  printf '%-28s %s\n' "$bug" "$found"
  patch -R -d "$copy" -p1 -s --no-backup-if-mismatch <"crates/weir-sim/bugs/$bug.patch"
done
exit "$hidden"
