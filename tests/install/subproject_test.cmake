# The consumer takes this project in as sources, by FetchContent, which is add_subdirectory: nothing but the library is
# built, and nothing is installed. -DSOURCE=, -DCONSUMER=, -DCXX=, -DGENERATOR=, -DLAUNCHER= (ccache, or nothing),
# -DCOMPILER= (adamas-cc of another build: that of this one is left out to save its time).
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)
run("configuring with FetchContent" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CONSUMER} -B ${folder}/build
  -DADAMAS_SOURCE=${SOURCE} -DADAMAS_BUILD_CPU_COMPILER=OFF -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_BUILD_TYPE=Release
  -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER})
run("building with FetchContent" ${CMAKE_COMMAND} --build ${folder}/build --target consumer consumer_static)
expect(${folder}/build/consumer "^compiled 3\n$" ADAMAS_CC=${COMPILER})
expect(${folder}/build/consumer_static "^compiled 0\n$")
run("looking for tests and tools" find ${folder}/build/_deps -name "adamas_tests*" -o -name "adamas_cli*")
if(said)
  fail("a project that takes this one in builds its tests or tools:\n${said}")
endif()
run("installing the consumer" ${CMAKE_COMMAND} --install ${folder}/build --prefix ${folder}/prefix)
if(EXISTS ${folder}/prefix/include/adamas)
  fail("a project that takes this one in installs its headers")
endif()
file(REMOVE_RECURSE ${folder})
