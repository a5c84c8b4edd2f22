/* The gate of a device: whoever runs ops or patches weights on it holds the gate meanwhile. Engines
 * of one device share one, because a device runs one program at a time. First come, first served,
 * so that neither an editor nor a session can starve the other. */
#ifndef LQT_RUNTIME_EXEC_GATE_H_
#define LQT_RUNTIME_EXEC_GATE_H_

#include "lqt/device.h"

typedef struct lqt__gate lqt__gate;

/* The gate of this device, made by the first who asks. NULL: no memory. */
lqt__gate *lqt__gate_get(lqt_device *device);
void lqt__gate_put(lqt__gate *gate); /* NULL accepted */
void lqt__gate_enter(lqt__gate *gate);
void lqt__gate_leave(lqt__gate *gate);

#endif /* LQT_RUNTIME_EXEC_GATE_H_ */
