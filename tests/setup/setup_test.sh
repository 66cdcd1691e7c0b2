#!/usr/bin/env bash
# tools/setup: installs what is missing and only that, is quiet otherwise, and fails with the way out.
# Needs no network and changes nothing: apt, dpkg, sudo and pip are stand-ins.
set -euo pipefail
# shellcheck source=tests/setup/harness.sh
source "$(dirname "${BASH_SOURCE[0]}")/harness.sh"

# A Debian machine where everything but the packages in $absent is installed; installing makes them present.
debian() {
  printf '%s\n' "$@" >"$sandbox/absent"
  export absent=$sandbox/absent
  fake dpkg-query <<'EOF'
grep -qxF -- "${@: -1}" "$absent" || printf 'installed '
EOF
  fake apt-get <<'EOF'
echo "apt-get $*" >>"$calls"
if [[ $* == *install* ]]; then : >"$absent"; fi
EOF
  fake apt-cache <<<'echo "Candidate: 1.0"'
  fake sudo <<<'exec "$@"'
}

# A PyPI whose wheels hold an NVRTC of three files, nested as NVIDIA's are.
pypi() {
  fake python3 <<'EOF'
case "$*" in
  "-m pip --version") ;;
  "-m pip download "*)
    echo "pip ${*: -4}" >>"$calls"
    mkdir -p "$TMPDIR/nvidia/nested/include" "$TMPDIR/nvidia/nested/lib"
    mkdir -p "$TMPDIR/nvidia_cuda_nvrtc-0.dist-info/licenses"
    cd "$TMPDIR"
    touch nvidia/nested/include/nvrtc.h nvidia/nested/lib/libnvrtc.so.13 nvidia/nested/lib/libnvrtc.alt.so.13
    echo terms >nvidia_cuda_nvrtc-0.dist-info/licenses/License.txt
    cmake -E tar cf "${@: -1}/nvrtc.whl" --format=zip nvidia nvidia_cuda_nvrtc-0.dist-info
    ;;
  "-m zipfile -e "*) cd "$5" && cmake -E tar xf "$4" ;;
  *) exit 64 ;;
esac
EOF
  mkdir "$sandbox/tmp"
  export TMPDIR=$sandbox/tmp
}

test_quiet_when_nothing_is_missing() {
  debian
  run 0 tools/setup
  expect_lines 1
  expect_no_call apt-get
}

test_installs_what_is_missing_and_only_that() {
  debian libfmt-dev doctest-dev
  run 0 tools/setup
  expect "libraries of the runtime and the command line: libfmt-dev"
  expect "tests: doctest-dev"
  expect_call "install -y --no-install-recommends libfmt-dev doctest-dev"
  : >"$calls"
  run 0 tools/setup
  expect_lines 1
  expect_no_call apt-get
}

test_programs_brought_from_elsewhere_count() {
  debian cmake ninja-build
  fake cmake </dev/null
  fake ninja </dev/null
  run 0 tools/setup
  expect_no_call apt-get
}

test_no_install_reports_and_switches_parts_off() {
  debian llvm-19-dev
  run 0 tools/setup --no-install
  expect "adamas-cc, the CPU compiler: llvm-19-dev"
  expect_no_call apt-get
  grep -qx -- -DADAMAS_BUILD_CPU_COMPILER=OFF "$sandbox/repo/.deps/build-options" || bad "the part is still on"
  run 0 tools/setup
  grep -qx -- -DADAMAS_BUILD_CPU_COMPILER=ON "$sandbox/repo/.deps/build-options" || bad "the part is still off"
}

test_unreachable_mirror() {
  debian libfmt-dev
  fake apt-get <<<'echo "E: Could not resolve host"; exit 100'
  fake apt-cache <<<'echo "Candidate: (none)"'
  run 1 tools/setup
  expect "the package lists could not be fetched"
  expect "Could not resolve host"
  expect "--no-install"
}

test_release_without_the_packages() {
  debian llvm-19-dev
  fake apt-cache <<<'echo "Candidate: (none)"'
  run 1 tools/setup
  expect "do not have: llvm-19-dev"
  expect "Debian 12"
}

test_failing_install_shows_its_log() {
  debian libfmt-dev
  fake apt-get <<<'if [[ $* == *install* ]]; then echo "E: disk is full"; exit 100; fi'
  run 1 tools/setup
  expect "disk is full"
  expect "build/logs/apt-install.log"
}

test_wheels_are_fetched_once() {
  debian
  pypi
  run 0 tools/setup --all
  expect_call "nvrtc-13.txt"
  expect_call "nvrtc-12.txt"
  local name
  for name in nvrtc-12 nvrtc-13; do
    expect_file ".deps/$name/include/nvrtc.h"
    expect_file ".deps/$name/lib/libnvrtc.so.13"
    expect_file ".deps/$name/LICENSE"
    expect_no_file ".deps/$name/lib/libnvrtc.alt.so.13"
    expect_no_file ".deps/$name.new"
  done
  : >"$calls"
  run 0 tools/setup --all
  expect_lines 1
  expect_no_call pip
}

test_what_some_tests_want_is_installed_when_asked_for() {
  debian libbenchmark-dev
  pypi
  run 0 tools/setup
  expect_no_call apt-get
  run 0 tools/setup --all
  expect "benchmarks: libbenchmark-dev"
  expect_call "install -y --no-install-recommends libbenchmark-dev"
}

test_changed_pins_are_fetched_again() {
  debian
  pypi
  run 0 tools/setup --all
  : >"$calls"
  echo "# another version" >>"$sandbox/repo/tools/shell/nvrtc-12.txt"
  run 0 tools/setup --all
  expect_call "nvrtc-12.txt"
  expect_no_call "nvrtc-13.txt"
}

test_toolkit_makes_wheels_unnecessary() {
  debian
  pypi
  run 0 tools/setup
  expect_no_call pip
}

test_unreachable_pypi() {
  debian
  fake python3 <<<'if [[ $* == *download* ]]; then echo "ERROR: no route to host"; exit 1; fi'
  run 1 tools/setup --all
  expect "no route to host"
  expect "PIP_FIND_LINKS"
  expect_no_file .deps/nvrtc-13
}

test_unsupported_machine() {
  fake uname <<'EOF'
if [[ $1 == -m ]]; then echo riscv64; else echo Linux; fi
EOF
  run 1 tools/setup
  expect "not on Linux riscv64"
}

test_usage() {
  run 2 tools/setup --bogus
  expect "unknown option '--bogus'"
  run 0 tools/setup --help
  expect "Example"
}

run_all
