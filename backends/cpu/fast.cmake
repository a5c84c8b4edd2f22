# The fast product (fast_matmul.h). Each kernel file is compiled for its own instructions; loops over
# registers must be unrolled whatever the build type.
target_sources(lqt PRIVATE ${CMAKE_CURRENT_LIST_DIR}/fast_matmul.c
                           ${CMAKE_CURRENT_LIST_DIR}/fast_pack.c
                           ${CMAKE_CURRENT_LIST_DIR}/fast_tables.c)
set_source_files_properties(
  ${CMAKE_CURRENT_LIST_DIR}/fast_tables.c ${CMAKE_CURRENT_LIST_DIR}/fast_pack.c
  TARGET_DIRECTORY lqt PROPERTIES COMPILE_OPTIONS "-O2")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(fast_avx2 -O2 -mavx2 -mfma -mf16c -mbmi2)
  # The unrolled kernels take minutes to compile with every arithmetic operation checked; they keep
  # the address checks. No fuzz target runs them.
  if(LQT_FUZZ)
    list(APPEND fast_avx2 -fno-sanitize=all)
  elseif(LQT_SANITIZE)
    list(APPEND fast_avx2 -O1 -fno-sanitize=undefined)
  endif()
  set(fast_avx512 ${fast_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  # The int8 tile's sums are begun by the first unit of a part, which GCC cannot see.
  foreach(pair "fast_f32_avx2.c|" "fast_int16_avx2.c|" "fast_f32_avx512.c|" "fast_f32_avx512vbmi.c|-mavx512vbmi"
               "fast_bf16_avx512.c|-mavx512vbmi|-mavx512bf16"
               "fast_int8_avx512.c|-mavx512vnni|$<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")
    string(REPLACE "|" ";" pair "${pair}")
    list(GET pair 0 source)
    if(source MATCHES "_avx2[.]c$")
      set(flags ${fast_avx2})
    else()
      list(SUBLIST pair 1 -1 extra)
      set(flags ${fast_avx512} ${extra})
    endif()
    target_sources(lqt PRIVATE ${CMAKE_CURRENT_LIST_DIR}/${source})
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/${source} TARGET_DIRECTORY lqt
                                PROPERTIES COMPILE_OPTIONS "${flags}")
  endforeach()
endif()
