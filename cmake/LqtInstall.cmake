# make install: library (static and shared), headers, program, lqt.pc, CMake package.
include(CMakePackageConfigHelpers)
set(lqt_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lqt)

install(TARGETS lqt_shared EXPORT lqtSharedTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS lqt EXPORT lqtStaticTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# backend.h is the interface between the runtime and its own backends, not an application's.
install(DIRECTORY include/lqt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h"
        PATTERN "backend.h" EXCLUDE)

install(EXPORT lqtSharedTargets NAMESPACE lqt:: DESTINATION ${lqt_cmake_dir})
set_target_properties(lqt PROPERTIES EXPORT_NAME lqt_static)
if(NOT LQT_STATIC_DEPS)
  install(TARGETS lqt_dep_jansson lqt_dep_crypto lqt_dep_deflate lqt_dep_zstd
          EXPORT lqtStaticTargets)
  install(EXPORT lqtStaticTargets NAMESPACE lqt:: DESTINATION ${lqt_cmake_dir})
endif()
configure_package_config_file(cmake/lqtConfig.cmake.in ${PROJECT_BINARY_DIR}/lqtConfig.cmake
                              INSTALL_DESTINATION ${lqt_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lqtConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lqtConfig.cmake ${PROJECT_BINARY_DIR}/lqtConfigVersion.cmake
        DESTINATION ${lqt_cmake_dir})

configure_file(cmake/lqt.pc.in ${PROJECT_BINARY_DIR}/lqt.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/lqt.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
