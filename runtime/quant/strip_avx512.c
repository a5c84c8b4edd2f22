#define LQT__STRIP_TABLE lqt__strip_avx512
#include "quant/strip_body.h"
