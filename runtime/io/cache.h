/* Where caches live: LQT_CACHE_DIR, else $XDG_CACHE_HOME/lqt, else ~/.cache/lqt. What is read from
 * there is a hint that its reader checks whole. */
#ifndef LQT_RUNTIME_IO_CACHE_H_
#define LQT_RUNTIME_IO_CACHE_H_

#include <stdbool.h>
#include <stddef.h>

/* Path of the cache file `name` (a plain file name). With `create` the folders are made, for this
 * user alone. False: there is no such place, or the path is too long. Threads: any. */
bool lqt__cache_path(const char *name, bool create, char *out, size_t capacity);

#endif /* LQT_RUNTIME_IO_CACHE_H_ */
