/* Everything an application needs: #include <lqt/lqt.h>. */
#ifndef LQT_LQT_H_
#define LQT_LQT_H_

#include "lqt/device.h"
#include "lqt/edit.h"
#include "lqt/journal.h"
#include "lqt/live.h"
#include "lqt/model.h"
#include "lqt/op.h"
#include "lqt/patch.h"
#include "lqt/quantize.h"
#include "lqt/selftest.h"
#include "lqt/session.h"
#include "lqt/status.h"
#include "lqt/tokenizer.h"
#include "lqt/types.h"
#include "lqt/weight.h"

#endif /* LQT_LQT_H_ */
