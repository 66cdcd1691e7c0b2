#!/usr/bin/env bash
# tools/bench-gpu with stand-ins for Python and adamas: what is run, in which order, and where dense times go.
set -euo pipefail
# shellcheck source=tests/setup/harness.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup/harness.sh"

# A packed checkout whose adamas prints one shape, and a Python that turns shapes into dense times.
prepare() {
  cp "$source_repo/tools/bench-gpu" "$sandbox/repo/tools/"
  mkdir -p "$sandbox/repo/build/gpu-check/bin"
  fake adamas <<'STAND_IN'
echo "adamas $*" >>"$calls"
case "$*" in
  *--print-shapes*) echo "shape of $3" ;;
  *) while (($#)); do [[ $1 == --dense ]] && cat "$2"; shift; done ;;
esac
STAND_IN
  mv "$sandbox/bin/adamas" "$sandbox/repo/build/gpu-check/bin/"
  fake python3 <<'STAND_IN'
echo "python3 $(basename "$1") $2" >>"$calls"
sed 's/^/dense /' "$3"
STAND_IN
}

test_one_command_times_both_on_the_same_shapes() {
  prepare
  run 0 tools/bench-gpu
  expect_call "python3 bench_torch.py --shapes"
  expect "dense shape of paper"
  expect "dense shape of serving"
  [[ $(sed -n 's/ --dense.*//p' "$calls") == $'adamas bench --device cuda:0 --preset paper\nadamas bench --device cuda:0 --preset serving' ]] ||
    bad "not one run for each preset"
}

test_options_reach_bench_and_its_shapes() {
  prepare
  run 0 tools/bench-gpu --preset serving -- --spec "budget=256" --encode
  expect_call "adamas bench --preset serving --print-shapes --spec budget=256 --encode"
  expect_call "--spec budget=256 --encode"
  expect_no_call "paper"
}

test_dense_times_are_kept_and_used_again() {
  prepare
  run 0 tools/bench-gpu --preset paper --dense kept.jsonl
  expect_file kept.jsonl
  : >"$calls"
  run 0 tools/bench-gpu --preset paper --dense kept.jsonl
  expect "dense shape of paper"
  expect_no_call python3
}

test_a_failed_dense_run_is_told_and_leaves_no_file() {
  prepare
  fake python3 <<'STAND_IN'
exit 1
STAND_IN
  run 1 tools/bench-gpu --preset paper --dense kept.jsonl
  expect "could not be timed"
  expect "--python"
  expect_no_file kept.jsonl
  expect_no_call "--device"
}

test_wrong_usage_ends_with_2_and_help_with_0() {
  prepare
  run 2 tools/bench-gpu --preset
  expect "Usage:"
  run 0 tools/bench-gpu --help
  expect "Examples:"
}

run_all
