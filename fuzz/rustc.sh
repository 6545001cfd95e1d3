#!/bin/sh
# Stands before rustc when scripts/fuzz.sh builds weir's crates: with the counters that libFuzzer reads, and fast.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Copt-level=2 -Ccodegen-units=1
