# What tools/setup, tools/demo and tools/test share: messages, long steps with a log, building a preset.
# Sourced, never run. Everything said goes to stderr, so that stdout belongs to the programs that are run.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=$repo/build/logs
build_options=$repo/.deps/build-options  # written by tools/setup: CMake options, one a line
script=$(basename "$0")

say() { printf '%s: %s\n' "$script" "$*" >&2; }

# fail WHAT [LINE...]: an error and, indented below it, the way out.
fail() {
  say "error: $1"
  shift
  if (($#)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}

# Reads a step's output: on a terminal its newest line, in place; elsewhere one line every 20 seconds.
show_progress() {
  local line shown=$SECONDS columns=${COLUMNS:-100}
  while IFS= read -r line; do
    if [[ -t 2 ]]; then
      printf '\r\033[K%.*s' "$columns" "$line" >&2
    elif ((SECONDS - shown >= 20)); then
      printf '  %.*s\n' "$columns" "$line" >&2
      shown=$SECONDS
    fi
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# run_logged NAME COMMAND...: runs it with its output in build/logs/NAME.log; its exit status is returned.
run_logged() {
  local log=$logs/$1.log
  shift
  mkdir -p "$logs"
  "$@" 2>&1 | tee "$log" | show_progress
}

# The part of a log that tells why its step failed: the first failed command of a build, else the end.
show_failure() {
  local log=$logs/$1.log
  if grep -q '^FAILED:' "$log"; then
    sed -n '/^FAILED:/,$p' "$log" | head -n 60 >&2
  else
    tail -n 25 "$log" >&2
  fi
}

# build_preset NAME [TARGET]: configures and builds that CMake preset on all cores; of it, all or one target.
build_preset() {
  local preset=$1 start=$SECONDS options target=()
  if (($# > 1)); then target=(--target "$2"); fi
  mapfile -t options <"$build_options"
  say "building the $preset preset"
  (cd "$repo" && run_logged "configure-$preset" cmake --preset "$preset" "${options[@]}") || {
    show_failure "configure-$preset"
    fail "CMake could not configure the $preset preset" "Whole log: build/logs/configure-$preset.log"
  }
  (cd "$repo" && run_logged "build-$preset" cmake --build --preset "$preset" --parallel "$(nproc)" "${target[@]}") || {
    show_failure "build-$preset"
    fail "the $preset preset does not build" "Whole log: build/logs/build-$preset.log"
  }
  say "built in $((SECONDS - start)) s"
}
