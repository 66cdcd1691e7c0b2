#!/usr/bin/env bash
# tools/demo and tools/test: arguments reach their program, a failure shows its cause and gives a failing status.
# They build a miniature project with the real presets; tools/setup is a stand-in that records its arguments.
set -euo pipefail
# shellcheck source=tests/setup/harness.sh
source "$(dirname "${BASH_SOURCE[0]}")/harness.sh"

# project BUILD_COMMAND: compiles nothing; its `adamas` prints its arguments, its tests are a script each.
project() {
  cp "$source_repo/CMakePresets.json" "$sandbox/repo/"
  cat >"$sandbox/repo/tools/setup" <<'EOF'
#!/bin/bash
echo "setup $*" >>"$calls"
cd "$(dirname "$0")/.." && mkdir -p .deps && echo -DADAMAS_BUILD_TESTS=ON >.deps/build-options
EOF
  cat >"$sandbox/repo/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(miniature NONE)
enable_testing()
add_custom_target(everything ALL COMMAND $1 VERBATIM)
add_custom_target(adamas_programs)
add_dependencies(adamas_programs everything)
file(WRITE \${CMAKE_BINARY_DIR}/tools/adamas "#!/bin/sh\necho ran \"\$@\"\n")
file(CHMOD \${CMAKE_BINARY_DIR}/tools/adamas PERMISSIONS OWNER_READ OWNER_EXECUTE)
add_test(NAME quick COMMAND sh -c "echo quick \$CUDA_VISIBLE_DEVICES \$ADAMAS_CC_SANITIZE >>$calls")
add_test(NAME slow COMMAND sh -c "echo slow >>$calls")
add_test(NAME broken COMMAND sh -c "echo the reason; exit 1")
set_tests_properties(quick PROPERTIES LABELS ci)
set_tests_properties(slow PROPERTIES LABELS full)
set_tests_properties(broken PROPERTIES LABELS \${BROKEN_LABEL})
EOF
  sed -i "2a set(BROKEN_LABEL ${2:-none})" "$sandbox/repo/CMakeLists.txt"
  fake clang++-19 </dev/null
}

test_demo_passes_its_options_on() {
  project true
  run 0 tools/demo --no-install --device cpu
  expect "ran demo --device cpu"
  expect_call "setup --no-install"
}

test_demo_shows_why_the_build_failed() {
  project false
  run 1 tools/demo
  expect "FAILED:"
  expect "the release preset does not build"
}

test_test_runs_ci_and_sanitizers() {
  project true
  run 0 tools/test --device cpu
  expect "100% tests passed"
  expect_call "setup --all"
  expect_call "quick address,undefined"
  expect_no_call slow
}

test_test_full_adds_the_full_label() {
  project true
  run 0 tools/test --full --no-install
  expect_call "setup --all --full --no-install"
  expect_call slow
}

test_test_hides_devices() {
  project true
  run 0 tools/test --device cuda:7
  expect_call "quick 7"
}

test_failing_test_fails() {
  project true ci
  run 1 tools/test
  expect "the reason"
  expect "tests failed: ci asan"
}

test_filter() {
  project true ci
  run 0 tools/test -R quick
  run 1 tools/test -R nothing-is-called-this
}

test_without_clang_sanitizers_are_left_out() {
  project true
  fake clang++-19 <<<'exit 1'
  run 0 tools/test
  expect "the asan tests are left out"
}

test_usage() {
  run 2 tools/test --device gpu
  expect "not 'gpu'"
  run 2 tools/test -R
  expect "-R needs a value"
  run 0 tools/test --help
  expect "Example"
  run 0 tools/demo --help
  expect "Example"
}

run_all
