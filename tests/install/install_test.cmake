# Installs the build into a folder of its own, builds the consumer against that with find_package and with pkg-config,
# and runs it. -DBUILD=, -DCONSUMER=, -DCXX=, -DGENERATOR=, -DPKG_CONFIG=, -DLIBDIR=, -DLIBEXECDIR=.
execute_process(COMMAND mktemp -d OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
set(prefix ${folder}/prefix)
set(library_folder ${prefix}/${LIBDIR})

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

# expect(PROGRAM TEXT): what a consumer must print, on a cache of its own, with nothing of this machine's environment
# that could show it the way to the compiler.
function(expect program text)
  execute_process(
    COMMAND ${CMAKE_COMMAND} -E env --unset=ADAMAS_CC --unset=LD_LIBRARY_PATH ADAMAS_CACHE_DIR=${folder}/cache
            ${program}
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT output MATCHES "${text}")
    fail("${program} was to print \"${text}\", and printed:\n${output}")
  endif()
endfunction()

run("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run("configuring with find_package" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CONSUMER} -B ${folder}/build
  -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_PREFIX_PATH=${prefix})
run("building with find_package" ${CMAKE_COMMAND} --build ${folder}/build)

# The compiler is found relative to the library: it works, and with the installed one gone nothing else is found.
set(compiler ${prefix}/${LIBEXECDIR}/adamas/adamas-cc)
file(RENAME ${compiler} ${compiler}.gone)
expect(${folder}/build/consumer "^unavailable: .*adamas-cc")
file(RENAME ${compiler}.gone ${compiler})
expect(${folder}/build/consumer "^compiled 3\n$")
expect(${folder}/build/consumer "^compiled 0\n$")

if(NOT PKG_CONFIG)
  fail("pkg-config is missing (Debian package pkg-config)")
endif()
# The whole installation is moved first: nothing in it may know where it was.
file(RENAME ${prefix} ${folder}/moved)
run("pkg-config" ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${folder}/moved/${LIBDIR}/pkgconfig ${PKG_CONFIG} --cflags
  --libs adamas)
string(STRIP "${said}" flags)
separate_arguments(flags UNIX_COMMAND "${flags}")
run("building with pkg-config" ${CXX} -std=c++20 ${CONSUMER}/consumer.cpp -o ${folder}/with_pkg_config ${flags}
  -Wl,-rpath,${folder}/moved/${LIBDIR})
file(REMOVE_RECURSE ${folder}/cache)
expect(${folder}/with_pkg_config "^compiled 3\n$")
file(REMOVE_RECURSE ${folder})
