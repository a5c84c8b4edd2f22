# Tests. Where they live: tests/unit/<area>/, tests/cts/, tests/stress/, tests/fuzz/, tests/cli/.
#
#   lqt_add_unit_test(name SOURCES a.c ... [LABELS slow ...] [LIBRARIES ...] [TIMEOUT seconds]
#                     [ENVIRONMENT A=b ...] [ARGS ...])
#       one Criterion executable, one ctest. Nothing when Criterion is missing. Times are limited
#       here: Criterion's own .timeout leaks now and then, which the address sanitizer reports.
#   lqt_add_stress_test(name SOURCES ... [LABELS ...] [TIMEOUT seconds] [ARGS ...])
#       a plain main that returns 0 on success; runs under ThreadSanitizer too.
#   lqt_add_fuzz_target(name SOURCES ... [CORPUS folder] [DICTIONARY file] [MAX_LENGTH bytes])
#       LLVMFuzzerTestOneInput on inputs of at most MAX_LENGTH bytes (65536). With LQT_FUZZ a libFuzzer executable; without it the corpus is
#       replayed once as a ctest.
#
# Every test sees LQT_TEST_DATA (the folder with models/ and eval/; the environment wins).

if(LQT_SANITIZE MATCHES "thread")
  set(LQT_UNIT_TESTS OFF)
endif()
if(BUILD_TESTING AND LQT_UNIT_TESTS)
  pkg_check_modules(CRITERION QUIET IMPORTED_TARGET criterion)
  if(NOT CRITERION_FOUND)
    message(STATUS "Unit tests: not built (Criterion is missing; Debian: libcriterion-dev)")
  endif()
endif()

if(DEFINED ENV{LQT_TEST_DATA})
  set(lqt_test_data $ENV{LQT_TEST_DATA})
else()
  get_filename_component(lqt_test_data ${PROJECT_SOURCE_DIR}/../shared ABSOLUTE)
endif()
set(LQT_TEST_DATA ${lqt_test_data} CACHE PATH "Folder with models/ and eval/ for the tests")

set(lqt_test_environment
    LQT_TEST_DATA=${LQT_TEST_DATA} LQT_SOURCE_DIR=${PROJECT_SOURCE_DIR}
    ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
    TSAN_OPTIONS=halt_on_error=1)

# Properties that all tests share. A leak report does not change Criterion's exit code, so its text
# is the failure.
function(lqt_test_properties name)
  cmake_parse_arguments(arg "" "TIMEOUT" "LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(LQT_SANITIZE)
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 4")
  endif()
  set_tests_properties(
    ${name}
    PROPERTIES TIMEOUT ${arg_TIMEOUT}
               LABELS "${arg_LABELS}"
               FAIL_REGULAR_EXPRESSION "LeakSanitizer: detected"
               SKIP_RETURN_CODE 77
               ENVIRONMENT "${lqt_test_environment};${arg_ENVIRONMENT}")
endfunction()

function(lqt_add_test_executable name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/runtime ${PROJECT_SOURCE_DIR}
                                             ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
  target_link_libraries(${name} PRIVATE lqt lqt_dep_jansson lqt_dep_zstd m Threads::Threads)
endfunction()

function(lqt_add_unit_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LABELS;LIBRARIES;ENVIRONMENT;ARGS" ${ARGN})
  if(NOT CRITERION_FOUND OR NOT BUILD_TESTING OR NOT LQT_UNIT_TESTS)
    return()
  endif()
  lqt_add_test_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES} PkgConfig::CRITERION)
  add_test(NAME ${name} COMMAND ${name} --short-filename ${arg_ARGS})
  lqt_test_properties(${name} TIMEOUT ${arg_TIMEOUT} LABELS unit ${arg_LABELS}
                      ENVIRONMENT ${arg_ENVIRONMENT})
endfunction()

function(lqt_add_stress_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LABELS;LIBRARIES;ARGS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  lqt_add_test_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES})
  add_test(NAME ${name} COMMAND ${name} ${arg_ARGS})
  lqt_test_properties(${name} TIMEOUT ${arg_TIMEOUT} LABELS stress ${arg_LABELS})
endfunction()

function(lqt_add_fuzz_target name)
  cmake_parse_arguments(arg "" "CORPUS;DICTIONARY;MAX_LENGTH" "SOURCES" ${ARGN})
  if(NOT arg_MAX_LENGTH)
    set(arg_MAX_LENGTH 65536)
  endif()
  if(NOT BUILD_TESTING OR LQT_SANITIZE MATCHES "thread")
    return()
  endif()
  if(arg_CORPUS)
    get_filename_component(arg_CORPUS ${arg_CORPUS} ABSOLUTE)
  endif()
  if(LQT_FUZZ)
    lqt_add_test_executable(${name} ${arg_SOURCES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set(options -max_len=${arg_MAX_LENGTH} -timeout=25 -rss_limit_mb=4096 -print_final_stats=1)
    if(arg_DICTIONARY)
      get_filename_component(arg_DICTIONARY ${arg_DICTIONARY} ABSOLUTE)
      list(APPEND options -dict=${arg_DICTIONARY})
    endif()
    # New inputs go to a folder of the build; the repository's corpus is only read.
    set(found ${CMAKE_CURRENT_BINARY_DIR}/${name}.corpus)
    file(MAKE_DIRECTORY ${found})
    add_test(NAME ${name} COMMAND ${PROJECT_SOURCE_DIR}/scripts/fuzz.sh $<TARGET_FILE:${name}>
                                  ${options} ${found} ${arg_CORPUS})
    lqt_test_properties(${name} TIMEOUT 36000 LABELS fuzz)
  elseif(arg_CORPUS)
    lqt_add_test_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
    add_test(NAME ${name}_replay COMMAND ${name} ${arg_CORPUS})
    lqt_test_properties(${name}_replay LABELS fuzz)
  endif()
endfunction()
