#!/bin/sh
# exit_codes.sh PROGRAM: exit codes, streams and texts that hold for every command of the program.
set -u
program=$1
failures=0
out=$(mktemp) err=$(mktemp)
trap 'rm -f "$out" "$err"' EXIT

# expect CODE STREAM TEXT WORDS...: runs the program with WORDS; STREAM (out or err) must contain TEXT, the other be empty.
expect() {
  code=$1 stream=$2 text=$3
  shift 3
  "$program" "$@" >"$out" 2>"$err"
  got=$?
  [ "$stream" = out ] && full=$out empty=$err || { full=$err; empty=$out; }
  if [ "$got" -ne "$code" ] || ! grep -qF -- "$text" "$full" || [ -s "$empty" ]; then
    echo "fathom $*: expected exit code $code and \"$text\" on std$stream only; came $got"
    sed 's/^/  stdout: /' "$out"
    sed 's/^/  stderr: /' "$err"
    failures=$((failures + 1))
  fi
}

expect 0 out "usage: fathom COMMAND" --help
expect 0 out "usage: fathom COMMAND" help
expect 0 out "fathom " --version
expect 2 err "fathom: error: expected a command, found none"
expect 2 err "did you mean \`fathom doctor\`?" doctr
expect 2 err "run \`fathom --help\`" zzzzzzzzzzzz
expect 0 out "instructions" doctor
expect 2 err "expected no further argument, found \"more\"" doctor more
expect 0 out "FATHOM_THREADS" doctor
expect 0 out "sandbox" doctor
expect 0 out "--depth" bench exactness --help
expect 2 err "zzz" bench exactness --zzz 1
expect 1 err "no row matches" bench exactness --filter zzz
expect 0 out "f32 M=1 N=512 K=512 " bench exactness --filter "f32 M=1 N=512" --seconds 0.01
expect 0 out "--rounds" bench sandbox --help
expect 2 err "expected at least one round" bench sandbox --rounds 0

expect 2 err "expected the name of a bench" bench
expect 2 err "run \`fathom bench --help\`" bench zzzzzzzzzz

expect 2 err "--problems: expected families or files" solve somewhere
expect 1 err "no problem family is called 'mod11'" solve somewhere --problems mod11
expect 2 err "--runs: expected folders" data from-rollouts
expect 2 err "--output: expected a folder" data marks
expect 1 err "expected sort_letters, found 'mod10'" data marks --output /nonexistent --family mod10
expect 2 err "--output: expected a file" data from-rollouts --runs somewhere

# The instruction set can be lowered, and only to one that exists.
FATHOM_ISA=ref expect 0 out "cpu/ref" doctor
sets=$("$program" doctor | sed -n 's/^ *instructions .* (of \(.*\))$/\1/p')
for set in ${sets:-none}; do
  FATHOM_ISA=$set expect 0 out "$set (of" doctor
done
FATHOM_ISA=AVX99 expect 1 err "expected an instruction set of this machine, found \"AVX99\"; one of:" doctor

# Every command of the table explains itself and refuses an unknown flag.
commands=$("$program" --help | sed -n '/^commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
[ -n "$commands" ] || { echo "the help text lists no commands"; failures=1; }
for command in $commands; do
  expect 0 out "usage: fathom $command" "$command" --help
  expect 2 err "--no-such-flag" "$command" --no-such-flag
done

# A full disk is reported, not swallowed.
if [ -w /dev/full ]; then
  "$program" --help >/dev/full 2>"$err"
  got=$?
  if [ "$got" -ne 1 ] || ! grep -q "standard output could not be written" "$err"; then
    echo "writing to a full disk: expected exit code 1 and a message; came $got"
    failures=$((failures + 1))
  fi
fi
exit $((failures > 0))
