#!/bin/sh
# run_fuzzers.sh BUILD_FOLDER SECONDS: runs each libFuzzer program for that long, one after the other; stops at a finding.
set -eu
build=$1 seconds=$2
seeds=$(cd "$(dirname "$0")/../tests/fuzz/seeds" && pwd)
for program in "$build"/*_fuzz; do
  name=$(basename "$program" _fuzz)
  mkdir -p "$build/corpus/$name" "$build/found/$name"
  echo "$name: $seconds s, findings go to $build/found/$name"
  log="$build/found/$name.log"
  if ! "$program" -max_total_time="$seconds" -max_len=65536 -timeout=10 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$build/found/$name/" "$build/corpus/$name" $([ -d "$seeds/$name" ] && echo "$seeds/$name") \
    >"$log" 2>&1; then
    tail -n 60 "$log"
    exit 1
  fi
  sed -n 's/^stat::number_of_executed_units: */  inputs tried: /p' "$log"
done
