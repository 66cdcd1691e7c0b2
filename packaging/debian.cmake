# Debian packages by `cpack -G DEB`, one an install component. What programs and libraries of others they need is
# found by dpkg-shlibdeps (Debian package dpkg-dev). Configure with -DCMAKE_INSTALL_PREFIX=/usr to get the folders
# of the machine's architecture (lib/x86_64-linux-gnu).
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME adamas)
set(CPACK_PACKAGE_VENDOR adamas-jit)
set(CPACK_PACKAGE_CONTACT "the adamas-jit project <adamas-jit@localhost>")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL library development)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(exactly "(= ${PROJECT_VERSION})")

set(library_package libadamas${ADAMAS_ABI})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${library_package})
set(CPACK_DEBIAN_LIBRARY_DESCRIPTION "${PROJECT_DESCRIPTION}
 The shared library. Kernels for CPUs are compiled by the package adamas-cc, those for GPUs by NVIDIA's NVRTC; packs
 and cached kernels need neither.")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_RECOMMENDS "adamas-cc ${exactly}")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_GENERATE_SHLIBS ON)  # and with it the trigger of ldconfig
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libadamas-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "${PROJECT_DESCRIPTION}
 Headers, the static library, and what find_package and pkg-config read.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
  "${library_package} ${exactly}, libpthreadpool-dev, libzstd-dev")  # the latter two for the static library

if(TARGET adamas-cc)
  list(APPEND CPACK_COMPONENTS_ALL compiler)
  set(CPACK_DEBIAN_COMPILER_PACKAGE_NAME adamas-cc)
  set(CPACK_DEBIAN_COMPILER_PACKAGE_SECTION devel)
  set(CPACK_DEBIAN_COMPILER_DESCRIPTION "CPU compiler of adamas-jit
 A program on the libraries of clang and LLVM, which the library starts, so that hosts never map these.")
endif()
if(TARGET adamas_cli)
  list(APPEND CPACK_COMPONENTS_ALL tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME adamas-tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
  set(CPACK_DEBIAN_TOOLS_DESCRIPTION "command line of adamas-jit
 Precompiles, evaluates and measures kernels, and says what works on a machine.")
  set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS "adamas-cc ${exactly}")
endif()
include(CPack)
