# Backends. A directory backends/<name>/CMakeLists.txt adds its sources to the target lqt and calls
# lqt_register_backend(<name>); the function `const lqt_backend *lqt_backend_<name>(void)` then
# stands in the generated table that runtime/device reads (runtime/device/registry.h). A backend
# whose tools are missing says why with lqt_skip_backend and registers nothing.
define_property(GLOBAL PROPERTY LQT_BACKENDS BRIEF_DOCS "Backends that are built, in order")

function(lqt_register_backend name)
  set_property(GLOBAL APPEND PROPERTY LQT_BACKENDS ${name})
  message(STATUS "Backend ${name}: built")
endfunction()

# Leaves a backend out: an error when the user asked for it by -D${option}=ON.
function(lqt_skip_backend name option reason)
  if("${${option}}" STREQUAL "ON")
    message(FATAL_ERROR "${option}=ON, but ${reason}")
  endif()
  message(STATUS "Backend ${name}: not built (${reason})")
endfunction()

macro(lqt_add_backends)
  foreach(_backend ${ARGN})
    string(TOUPPER LQT_${_backend} _option)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/backends/${_backend}/CMakeLists.txt)
      if("${${_option}}" STREQUAL "ON")
        message(FATAL_ERROR "${_option}=ON, but this version has no ${_backend} backend")
      endif()
    elseif(NOT "${${_option}}" STREQUAL "OFF" OR _backend STREQUAL "cpu")
      add_subdirectory(backends/${_backend})
    endif()
  endforeach()
  lqt_generate_registry()
endmacro()

function(lqt_generate_registry)
  get_property(names GLOBAL PROPERTY LQT_BACKENDS)
  set(LQT_BACKEND_DECLARATIONS "")
  set(LQT_BACKEND_ENTRIES "")
  foreach(name ${names})
    string(APPEND LQT_BACKEND_DECLARATIONS "const lqt_backend *lqt_backend_${name}(void);\n")
    string(APPEND LQT_BACKEND_ENTRIES "    lqt_backend_${name},\n")
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/registry.c.in
                 ${PROJECT_BINARY_DIR}/generated/registry.c @ONLY)
  target_sources(lqt PRIVATE ${PROJECT_BINARY_DIR}/generated/registry.c)
endfunction()
