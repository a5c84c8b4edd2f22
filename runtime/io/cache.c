#include "io/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool make_folders(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
    *slash = '/';
    if (!made) return false;
  }
  return true;
}

bool lqt__cache_path(const char *name, bool create, char *out, size_t capacity) {
  const char *own = getenv("LQT_CACHE_DIR");
  const char *xdg = getenv("XDG_CACHE_HOME");
  const char *home = getenv("HOME");
  int n = -1;
  if (own != NULL && own[0] != '\0') {
    n = snprintf(out, capacity, "%s/%s", own, name);
  } else if (xdg != NULL && xdg[0] == '/') { /* relative paths are to be ignored: XDG base dirs */
    n = snprintf(out, capacity, "%s/lqt/%s", xdg, name);
  } else if (home != NULL && home[0] == '/') {
    n = snprintf(out, capacity, "%s/.cache/lqt/%s", home, name);
  }
  if (n < 0 || (size_t)n >= capacity) return false;
  return !create || make_folders(out);
}
