# A copy of the set-up scripts in a throwaway repository, with a PATH of stand-ins in front, and checks.
# Sourced by the tests beside it. Each test is a function test_*; run_all runs them all, each in a fresh sandbox.
# shellcheck shell=bash

source_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# fake NAME: installs stdin as program NAME, first on the PATH. $calls is a log that stand-ins may write.
fake() {
  { echo '#!/bin/bash' && cat; } >"$sandbox/bin/$1"
  chmod +x "$sandbox/bin/$1"
}

# run EXPECTED_STATUS COMMAND...: leaves stdout and stderr, joined, in $output.
run() {
  local expected=$1 status=0
  shift
  output=$(cd "$sandbox/repo" && "$@" 2>&1 </dev/null) || status=$?
  ((status == expected)) || bad "exit status $status, not $expected, of: $*"
}

bad() {
  printf 'FAILED %s: %s\n--- output\n%s\n--- calls\n%s\n' "$test" "$1" "${output:-}" "$(cat "$calls")" >&2
  exit 1
}

expect() { [[ $output == *"$1"* ]] || bad "the output lacks '$1'"; }
expect_lines() { (($(wc -l <<<"$output") <= $1)) || bad "more than $1 lines of output"; }
expect_call() { grep -qF -- "$1" "$calls" || bad "no call like '$1'"; }
expect_no_call() { ! grep -qF -- "$1" "$calls" || bad "an unwanted call like '$1'"; }
expect_file() { [[ -e $sandbox/repo/$1 ]] || bad "no file $1"; }
expect_no_file() { [[ ! -e $sandbox/repo/$1 ]] || bad "an unwanted file $1"; }

make_sandbox() {
  sandbox=$(mktemp -d)
  trap 'rm -rf "$sandbox"' EXIT
  export calls=$sandbox/calls
  : >"$calls"
  mkdir -p "$sandbox/bin" "$sandbox/repo/tools" "$sandbox/cuda/include" "$sandbox/cuda/lib64"
  cp -r "$source_repo"/tools/{setup,demo,test,shell} "$sandbox/repo/tools/"
  touch "$sandbox/cuda/include/cuda.h" "$sandbox/cuda/include/nvrtc.h" "$sandbox/cuda/lib64/libnvrtc.so.13"
  export CUDA_PATH=$sandbox/cuda PATH=$sandbox/bin:$PATH
}

run_all() {
  local count=0
  for test in $(compgen -A function test_); do
    (make_sandbox && "$test") || exit 1
    count=$((count + 1))
  done
  ((count > 0)) || exit 1
  echo "$count tests passed"
}
