# Installs the build into a folder of its own, builds the consumer against that with find_package and with pkg-config,
# with the shared library and with the static one, and runs it.
# -DBUILD=, -DCONSUMER=, -DCXX=, -DGENERATOR=, -DPKG_CONFIG=, -DLIBDIR=, -DLIBEXECDIR=.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)
set(prefix ${folder}/prefix)

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
# The static one is of the consumer's own folder, where there is no compiler: it takes what the other has compiled.
expect(${folder}/build/consumer_static "^compiled 0\n$")

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
run("pkg-config --static" ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${folder}/moved/${LIBDIR}/pkgconfig ${PKG_CONFIG}
  --static --cflags --libs adamas)
string(STRIP "${said}" flags)
string(REPLACE "-ladamas" "-l:libadamas.a" flags "${flags}")
separate_arguments(flags UNIX_COMMAND "${flags}")
run("building with pkg-config --static" ${CXX} -std=c++20 ${CONSUMER}/consumer.cpp -o ${folder}/static_with_pkg_config
  ${flags})
expect(${folder}/static_with_pkg_config "^compiled 0\n$")
file(REMOVE_RECURSE ${folder})
