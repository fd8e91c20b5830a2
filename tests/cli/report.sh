#!/bin/sh
# report.sh PROGRAM: `fathom report` on folders that hold no run, a damaged one, and one that cannot be written.
set -u
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# refuse CODE TEXT WORDS...: the report must fail with CODE, say TEXT on stderr and write nothing on stdout.
refuse() {
  code=$1 text=$2
  shift 2
  out=$("$program" report "$@" 2>"$folder/err")
  got=$?
  if [ "$got" -ne "$code" ] || [ -n "$out" ] || ! grep -qF -- "$text" "$folder/err"; then
    echo "report $*: expected exit code $code and \"$text\"; came $got: $(cat "$folder/err")"
    failures=$((failures + 1))
  fi
}

refuse 2 "expected RUN"
refuse 1 "expected a run (metrics.sqlite), found none" "$folder/absent"
mkdir "$folder/damaged"
head -c 5000 /dev/zero | tr '\0' x >"$folder/damaged/metrics.sqlite"
refuse 1 "damaged" "$folder/damaged"
exit $((failures > 0))
