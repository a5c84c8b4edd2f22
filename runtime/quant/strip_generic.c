#define LQT__STRIP_TABLE lqt__strip_generic
#include "quant/strip_body.h"
