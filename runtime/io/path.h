/* Names in folders: what output files and journals share. For the files of this layer. */
#ifndef LQT_RUNTIME_IO_PATH_H_
#define LQT_RUNTIME_IO_PATH_H_

#include "lqt/status.h"

/* "cannot DOING: ERRNO'S TEXT"; LQT_NOT_FOUND where errno says that, else LQT_IO. */
lqt_status lqt__fail_io(lqt_diag *diag, const char *path, const char *doing);
/* The file that `path` names, through symbolic links, so that a link stays a link; lqt__free.
 * NULL: no memory. */
char *lqt__path_resolve(const char *path);
/* The folder that holds it; lqt__free. NULL: no memory. */
char *lqt__path_directory(const char *path);
LQT_NODISCARD lqt_status lqt__path_rename(const char *from, const char *to, lqt_diag *diag);
void lqt__path_remove(const char *path);
/* Syncs the folder `directory`, so that the name `path` in it stays as it is. */
LQT_NODISCARD lqt_status lqt__path_sync_directory(const char *path, const char *directory,
                                                  lqt_diag *diag);

#endif /* LQT_RUNTIME_IO_PATH_H_ */
