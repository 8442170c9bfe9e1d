/* Disables file system features that some file systems lack, for a process that preloads this library.
 *
 * LANDFALL_SHIM_REFUSE lists, separated by commas: `link` (hard links: EINVAL, as on CIFS) and `folder-sync` (fsync of
 * a folder: EINVAL, as on CIFS, vboxsf and gocryptfs).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuses(const char *what) {
    const char *list = getenv("LANDFALL_SHIM_REFUSE");
    return list != NULL && strstr(list, what) != NULL;
}

int link(const char *from, const char *to) {
    if (refuses("link")) {
        errno = EINVAL;
        return -1;
    }
    int (*next)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    return next(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    if (refuses("link")) {
        errno = EINVAL;
        return -1;
    }
    int (*next)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    return next(from_folder, from, to_folder, to, flags);
}

int fsync(int file) {
    struct stat found;
    if (refuses("folder-sync") && fstat(file, &found) == 0 && S_ISDIR(found.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    return next(file);
}
