#include "lqt/types.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *lqt_version_text(void) {
  return TEXT(LQT_VERSION_MAJOR) "." TEXT(LQT_VERSION_MINOR) "." TEXT(LQT_VERSION_PATCH);
}

size_t lqt_dtype_size(lqt_dtype dtype) {
  switch (dtype) {
    case LQT_DTYPE_F32:
    case LQT_DTYPE_I32:
      return 4;
    case LQT_DTYPE_F16:
    case LQT_DTYPE_BF16:
      return 2;
    case LQT_DTYPE_I8:
    case LQT_DTYPE_U8:
      return 1;
    default:
      return 0;
  }
}

const char *lqt_dtype_name(lqt_dtype dtype) {
  switch (dtype) {
    case LQT_DTYPE_F32:
      return "f32";
    case LQT_DTYPE_F16:
      return "f16";
    case LQT_DTYPE_BF16:
      return "bf16";
    case LQT_DTYPE_I8:
      return "i8";
    case LQT_DTYPE_U8:
      return "u8";
    case LQT_DTYPE_I32:
      return "i32";
    case LQT_DTYPE_CODEBOOK:
      return "codebook";
    default:
      return "?";
  }
}
