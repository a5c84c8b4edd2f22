# Language level, options, warnings, sanitizers and third-party libraries.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

set(LQT_CUDA AUTO CACHE STRING "CUDA backend: AUTO builds it where nvcc is found")
set(LQT_VULKAN AUTO CACHE STRING "Vulkan backend: AUTO builds it where glslc and volk are found")
set_property(CACHE LQT_CUDA LQT_VULKAN PROPERTY STRINGS AUTO ON OFF)
option(LQT_WERROR "Treat warnings as errors" OFF)
option(LQT_STATIC_DEPS "Link third-party libraries statically (libc stays shared)" OFF)
option(LQT_FUZZ "Build the libFuzzer targets (clang only)" OFF)
option(LQT_UNIT_TESTS "Build the Criterion tests (they cannot run under ThreadSanitizer)" ON)
set(LQT_SANITIZE "" CACHE STRING "Sanitizers for everything built: address,undefined or thread")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_C_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_compile_options(
  "$<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes;-Wvla;-Wundef;-Wpointer-arith;-Wwrite-strings;-Wformat=2;-Wno-format-nonliteral>"
)
# Sentences that are too long are cut on purpose.
add_compile_options("$<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>")
if(LQT_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:C>:-Werror>")
endif()

if(LQT_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "LQT_FUZZ needs clang: use the preset 'fuzz' or -DCMAKE_C_COMPILER=clang")
  endif()
  if(NOT LQT_SANITIZE)
    set(LQT_SANITIZE address,undefined)
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()
if(LQT_SANITIZE)
  # -O1 (after the build type's -O2, so it wins): compiles in two thirds of the time, runs about as
  # fast, and its reports point to the right lines.
  add_compile_options(-fsanitize=${LQT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
                      -O1)
  add_link_options(-fsanitize=${LQT_SANITIZE})
endif()

find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# lqt_dep_<name>: the pkg-config module `module`, from its archive when LQT_STATIC_DEPS is on.
function(lqt_find_dependency name module)
  pkg_check_modules(${name} REQUIRED QUIET IMPORTED_TARGET ${module})
  add_library(lqt_dep_${name} INTERFACE)
  if(NOT LQT_STATIC_DEPS)
    target_link_libraries(lqt_dep_${name} INTERFACE PkgConfig::${name})
    return()
  endif()
  list(GET ${name}_LIBRARIES 0 library)
  find_library(LQT_ARCHIVE_${name} lib${library}.a HINTS ${${name}_LIBDIR} REQUIRED)
  target_include_directories(lqt_dep_${name} SYSTEM INTERFACE ${${name}_INCLUDE_DIRS})
  target_link_libraries(lqt_dep_${name} INTERFACE ${LQT_ARCHIVE_${name}})
endfunction()
lqt_find_dependency(jansson jansson)
lqt_find_dependency(crypto libcrypto)
lqt_find_dependency(deflate libdeflate)
lqt_find_dependency(zstd libzstd)
