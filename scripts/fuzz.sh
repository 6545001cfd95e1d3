#!/usr/bin/env bash
# Fuzzes what strangers can hand to weir (fuzz/src/lib.rs lists the targets), each for some seconds, from the committed
# corpus on. It needs no nightly compiler: libFuzzer finds its way by counters that stable rustc puts into weir's crates.
#   scripts/fuzz.sh [SECONDS [TARGET ...]]   fuzz; 5 seconds and every target if nothing is said
#   scripts/fuzz.sh keep [TARGET ...]        put what was found into the corpus, no more than is needed
# What was found on the way stays in target/fuzz. An input that breaks a promise ends the run and is put into the corpus
# as crash-...: its test fails until it is mended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-5}
case $seconds in
  keep | [0-9]*) [ $# -gt 0 ] && shift ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

# Counters go into weir's own crates only, so that what they are built on is shared with every other build.
export RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc.sh
cargo build --quiet --locked -p weir-fuzz --features libfuzzer
fuzzer=$PWD/target/debug/weir-fuzz

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^    ("\([a-z_]*\)", .*/\1/p' fuzz/src/lib.rs)

for target in "${targets[@]}"; do
  export WEIR_FUZZ_TARGET=$target
  found=target/fuzz/$target
  mkdir -p "$found"
  if [ "$seconds" = keep ]; then
    rm -rf "$found.kept" && mkdir "$found.kept"
    "$fuzzer" -set_cover_merge=1 -use_counters=0 -max_len=4096 "$found.kept" "fuzz/corpus/$target" "$found" 2>&1 | tail -1
    find "fuzz/corpus/$target" -type f ! -name 'crash-*' -delete
    mv "$found.kept"/* "fuzz/corpus/$target/" && rmdir "$found.kept"
    continue
  fi
  log=target/fuzz/$target.log
  if ! "$fuzzer" "$found" "fuzz/corpus/$target" -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
    -max_total_time="$seconds" -artifact_prefix="fuzz/corpus/$target/" -print_final_stats=1 >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
  printf '%-14s %s\n' "$target" "$(sed -n 's/^stat::\(number_of_executed_units\|new_units_added\): */\1 /p' "$log" | xargs)"
done
