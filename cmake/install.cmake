# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where: headers, the library, and its descriptions for CMake and pkg-config. (The program
# is installed by cli/.)

include(CMakePackageConfigHelpers)

install(DIRECTORY include/lockstep DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS lockstep EXPORT lockstep
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

# CMake: find_package(lockstep) gives lockstep::lockstep
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lockstep)
install(EXPORT lockstep NAMESPACE lockstep:: FILE lockstep-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/lockstep-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/lockstep-config.cmake
    INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# before 1.0 a minor version may change the interface
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/lockstep-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lockstep-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/lockstep-config-version.cmake DESTINATION ${package_dir})

# pkg-config: either library is installed, never both. A static one needs its own libraries named to every program that is
# linked with it; a shared one brings them along. The prefix is found from the file's own place.
if(BUILD_SHARED_LIBS)
    set(pc_requires "")
    set(pc_libs "")
else()
    set(pc_requires "yaml-0.1 jansson libxxhash zlib")
    set(pc_libs " -ldnnl ${OpenMP_C_FLAGS} -pthread -lm")
endif()
set(pc_folder ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH pc_prefix ${pc_folder} ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pc_prefix ${pc_prefix})
configure_file(cmake/lockstep.pc.in ${CMAKE_CURRENT_BINARY_DIR}/lockstep.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lockstep.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
