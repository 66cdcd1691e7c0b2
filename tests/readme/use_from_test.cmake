# The blocks below "## Use it from" of README: compiled, each as the body of a function that has the names a host has.
# They run in tools/examples. -DREADME=, -DCXX=, -DCC=, -DINCLUDE=, -DFOLDER= (to work in).
file(READ ${README} text)

# read_block(HEADING FENCE): the first block of that language below the heading, in `code`.
function(read_block heading fence)
  string(FIND "${text}" "\n### ${heading}\n" section)
  if(section EQUAL -1)
    message(FATAL_ERROR "${README} has no section ${heading}")
  endif()
  string(SUBSTRING "${text}" ${section} -1 rest)
  string(FIND "${rest}" "```${fence}\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "section ${heading} of ${README} has no ```${fence} block")
  endif()
  string(LENGTH "```${fence}\n" skip)
  math(EXPR begin "${begin} + ${skip}")
  string(SUBSTRING "${rest}" ${begin} -1 rest)
  string(FIND "${rest}" "```" end)
  string(SUBSTRING "${rest}" 0 ${end} found)
  set(code "${found}" PARENT_SCOPE)
endfunction()

read_block(C++ cpp)
file(WRITE ${FOLDER}/use_from.cpp "#include <adamas/adamas.hpp>
bool use(adamas::Cache cache, void* codes, int32_t* slot_mapping, int64_t new_tokens, int64_t all_slots,
         float* thresholds, void* counters, void* work, void* query, int32_t* lengths, void* out, void* stream) {
${code}  return sparse;\n}\n")
execute_process(COMMAND ${CXX} -std=c++20 -Wall -Wextra -Wno-missing-field-initializers -Werror -I${INCLUDE}
  -c ${FOLDER}/use_from.cpp -o ${FOLDER}/use_from.cpp.o COMMAND_ERROR_IS_FATAL ANY)

read_block(C c)
file(WRITE ${FOLDER}/use_from.c "#include <adamas/adamas.h>
void use(adamas_cache cache, void* codes, int32_t* slots, int64_t new_tokens, float* thresholds, adamas_call call,
         void* stream, adamas_error_info error);
void use(adamas_cache cache, void* codes, int32_t* slots, int64_t new_tokens, float* thresholds, adamas_call call,
         void* stream, adamas_error_info error) {
  adamas_context* ctx;
  adamas_kernel* kernel;
  adamas_plan* plan;
  adamas_counters did;
${code}}\n")
execute_process(COMMAND ${CC} -std=c99 -Wall -Wextra -Wno-missing-field-initializers -Werror -I${INCLUDE}
  -c ${FOLDER}/use_from.c -o ${FOLDER}/use_from.c.o COMMAND_ERROR_IS_FATAL ANY)
