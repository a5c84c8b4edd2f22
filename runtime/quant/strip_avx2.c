#define LQT__STRIP_TABLE lqt__strip_avx2
#include "quant/strip_body.h"
