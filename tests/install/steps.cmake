# What scripts of this folder share: a folder to work in, `folder`, which a failure leaves no trace of, and steps.
execute_process(COMMAND mktemp -d OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

function(fail)
  file(REMOVE_RECURSE ${folder})
  message(FATAL_ERROR ${ARGN})
endfunction()

# run(WHAT COMMAND...): stops the test, and cleans up, when the command fails; its output is in `said`.
function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    fail("${what} failed (${result}):\n${output}")
  endif()
  set(said "${output}" PARENT_SCOPE)
endfunction()

# expect(PROGRAM TEXT [VARIABLE=VALUE...]): what a program must print, on a cache of its own, with nothing of this
# machine's environment that could show it the way to the compiler.
function(expect program text)
  execute_process(
    COMMAND ${CMAKE_COMMAND} -E env --unset=ADAMAS_CC --unset=LD_LIBRARY_PATH ADAMAS_CACHE_DIR=${folder}/cache ${ARGN}
            ${program}
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT output MATCHES "${text}")
    fail("${program} was to print \"${text}\", and printed:\n${output}")
  endif()
endfunction()
