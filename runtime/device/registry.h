/* The table of backends that were built. The build generates its definition, so that nothing in
 * runtime/ names a backend. */
#ifndef LQT_RUNTIME_DEVICE_REGISTRY_H_
#define LQT_RUNTIME_DEVICE_REGISTRY_H_

#include "lqt/backend.h"

typedef const lqt_backend *(*lqt__backend_fn)(void);

/* Ends with NULL. */
extern const lqt__backend_fn lqt__backend_table[];

#endif /* LQT_RUNTIME_DEVICE_REGISTRY_H_ */
