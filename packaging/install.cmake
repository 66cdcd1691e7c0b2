# What `cmake --install` puts where, in components that become packages: the shared library; what programs are built
# with (headers, static library, find_package, pkg-config); the CPU compiler; the command line.
include(CMakePackageConfigHelpers)
set(ADAMAS_CONFIG_FOLDER ${CMAKE_INSTALL_LIBDIR}/cmake/adamas)

install(TARGETS adamas EXPORT adamas
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library NAMELINK_COMPONENT development)
install(TARGETS adamas_static EXPORT adamas
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/adamas DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT adamas NAMESPACE adamas:: FILE adamas-targets.cmake DESTINATION ${ADAMAS_CONFIG_FOLDER}
  COMPONENT development)

configure_package_config_file(packaging/adamas-config.cmake.in ${PROJECT_BINARY_DIR}/packaging/adamas-config.cmake
  INSTALL_DESTINATION ${ADAMAS_CONFIG_FOLDER})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/packaging/adamas-config-version.cmake
  COMPATIBILITY SameMinorVersion)
# Relative, so that an installation may be moved, or made below a prefix named at install time.
file(RELATIVE_PATH ADAMAS_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(packaging/adamas.pc.in packaging/adamas.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/packaging/adamas-config.cmake
  ${PROJECT_BINARY_DIR}/packaging/adamas-config-version.cmake
  DESTINATION ${ADAMAS_CONFIG_FOLDER} COMPONENT development)
install(FILES ${PROJECT_BINARY_DIR}/packaging/adamas.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
  COMPONENT development)

if(TARGET adamas-cc)
  # The library looks for it there, relative to itself.
  install(TARGETS adamas-cc RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/adamas COMPONENT compiler)
endif()
if(TARGET adamas_cli)
  install(TARGETS adamas_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
endif()
