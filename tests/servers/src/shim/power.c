/*
 * Preloaded into a process, this records what the process has synced: after a power cut a file has
 * the bytes of its last fsync, and a folder the names of its last fsync.
 *
 * LANDFALL_TEST_SYNCED contains, for each inode (identified by its number and birth time, because
 * numbers are reused): f.INODE, the bytes of a file; d.INODE, the names in a folder, one per line,
 * with their kinds and inodes. LANDFALL_TEST_UNSYNCED=file:PART or folder:PART disables the fsyncs
 * of files or folders with PART in their paths, as if the code did not call them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH = 4096, CHUNK = 1 << 16 };

static void fail(const char *what) {
    fprintf(stderr, "power shim: %s: %s\n", what, strerror(errno));
    abort();
}

/* The inode of NAME in the folder FD, or of FD itself if NAME is empty; false if it no longer exists. */
static int inode(int fd, const char *name, char *out, mode_t *mode) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(fd, name, flags, STATX_INO | STATX_TYPE | STATX_BTIME, &found) != 0)
        return 0;
    if (!(found.stx_mask & STATX_BTIME))
        fail("the file system keeps no times of birth");
    snprintf(out, PATH, "%llu.%lld.%u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    *mode = found.stx_mode;
    return 1;
}

static void write_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written <= 0)
            fail("write");
        bytes += written;
        length -= (size_t)written;
    }
}

static void copy_file(int from, int to) {
    static _Thread_local char chunk[CHUNK];
    off_t at = 0;
    for (ssize_t got; (got = pread(from, chunk, CHUNK, at)) != 0; at += got) {
        if (got < 0)
            fail("read");
        write_all(to, chunk, (size_t)got);
    }
}

static void copy_names(int from, int to) {
    DIR *folder = fdopendir(dup(from));
    if (!folder)
        fail("fdopendir");
    for (struct dirent *entry; (entry = readdir(folder));) {
        char line[3 * PATH], id[PATH];
        mode_t mode;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (!inode(from, entry->d_name, id, &mode) || !(S_ISREG(mode) || S_ISDIR(mode)))
            continue;
        int length = snprintf(line, sizeof line, "%c %s %s\n", S_ISDIR(mode) ? 'd' : 'f', id,
                              entry->d_name);
        write_all(to, line, (size_t)length);
    }
    closedir(folder);
}

static int is_unsynced(const char *path, int is_folder) {
    const char *wanted = getenv("LANDFALL_TEST_UNSYNCED");
    const char *kind = is_folder ? "folder:" : "file:";
    if (!wanted || strncmp(wanted, kind, strlen(kind)))
        return 0;
    return strstr(path, wanted + strlen(kind)) != NULL;
}

static int synced(int fd, int call) {
    static atomic_uint count;
    char link[64], path[PATH], id[PATH], draft[2 * PATH], name[2 * PATH];
    const char *notes = getenv("LANDFALL_TEST_SYNCED");
    mode_t mode;
    if (!inode(fd, "", id, &mode))
        return -1;
    if (!notes || !(S_ISREG(mode) || S_ISDIR(mode)))
        return (int)syscall(call, fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH - 1);
    if (length < 0)
        fail("readlink");
    path[length] = 0;
    if (is_unsynced(path, S_ISDIR(mode)))
        return 0;
    /* One at a time across all processes: an older copy must not replace a newer one. */
    snprintf(name, sizeof name, "%s/lock", notes);
    int lock = open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (lock < 0 || flock(lock, LOCK_EX) != 0)
        fail("lock");
    /* The descriptor itself may be write-only. */
    int from = open(link, O_RDONLY | O_CLOEXEC);
    snprintf(draft, sizeof draft, "%s/draft.%d.%u", notes, getpid(), atomic_fetch_add(&count, 1));
    int to = open(draft, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (from < 0 || to < 0)
        fail("open");
    if (S_ISDIR(mode))
        copy_names(from, to);
    else
        copy_file(from, to);
    snprintf(name, sizeof name, "%s/%c.%s", notes, S_ISDIR(mode) ? 'd' : 'f', id);
    if (rename(draft, name) != 0)
        fail("rename");
    close(from);
    close(to);
    close(lock);
    return 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
