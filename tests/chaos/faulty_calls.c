/* A library for LD_PRELOAD that lets system calls on the files below one folder fail, or kills the process in them.

   The environment variable SUPSUP_TEST_FAULT, or the function `arm`, holds "ACTION CLASSES FIRST COUNT FOLDER":
   ACTION: the number of an error such as 5 (EIO), or 0 to kill the process in the middle of the call.
   CLASSES: the sum of the classes of calls that can fail, see below.
   FIRST: the first of these calls that fails, from 1. COUNT: how many calls fail; 0 means all later ones.
   FOLDER: an absolute path. Calls on other files are neither counted nor changed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { GROWS = 1, SYNCS = 2, NAMES = 4, READS = 8 };

#define MOST 65536

static char folder[PATH_MAX];
static int action, classes;
static long first, count;
static atomic_long calls;
static atomic_char is_ours[MOST]; /* by file descriptor */

static int below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int names_ours(int at, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!folder[0] || !path) return 0;
    if (path[0] == '/') return below(path);
    if (at == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = 0;
    }
    snprintf(whole + strlen(whole), PATH_MAX, "/%s", path);
    return below(whole);
}

static int opened_ours(int fd) { return fd >= 0 && fd < MOST && is_ours[fd]; }

/* Returns whether this call must fail. */
static int fails(int class, int ours) {
    if (!ours || !(class & classes)) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (number < first || (count && number >= first + count)) return 0;
    errno = action;
    return 1;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

void arm(const char *text) {
    int at = 0;
    folder[0] = 0;
    if (!text || sscanf(text, "%d %d %ld %ld %n", &action, &classes, &first, &count, &at) < 4 || !at) return;
    atomic_store(&calls, 0);
    strncpy(folder, text + at, PATH_MAX - 1);
}

long counted(void) { return atomic_load(&calls); }

__attribute__((constructor)) static void begin(void) { arm(getenv("SUPSUP_TEST_FAULT")); }

#define REAL(type, name, ...)                                                                                         \
    static type (*real)(__VA_ARGS__);                                                                                 \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL(class, ours)                                                                                              \
    if (fails(class, ours)) {                                                                                          \
        if (!action) die();                                                                                            \
        return -1;                                                                                                     \
    }

static int note(int fd, int ours) {
    if (fd >= 0 && fd < MOST) is_ours[fd] = ours;
    return fd;
}

/* Whether a call of open makes a new file, which needs space. */
static int makes(int at, const char *path, int flags) {
    return flags & O_TMPFILE & ~O_DIRECTORY || (flags & O_CREAT && faccessat(at, path, F_OK, AT_SYMLINK_NOFOLLOW));
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        REAL(int, #name, const char *, int, ...);                                                                      \
        int ours = names_ours(AT_FDCWD, path);                                                                         \
        FAIL(makes(AT_FDCWD, path, flags) ? GROWS : READS, ours)                                                       \
        return note(real(path, flags, mode), ours);                                                                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int at, const char *path, int flags, ...) {                                                               \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        REAL(int, #name, int, const char *, int, ...);                                                                 \
        int ours = names_ours(at, path);                                                                               \
        FAIL(makes(at, path, flags) ? GROWS : READS, ours)                                                             \
        return note(real(at, path, flags, mode), ours);                                                                \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(int, "close", int);
    note(fd, 0);
    return real(fd);
}

/* A write that kills the process writes the first half of its bytes: the file is torn. */
ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fails(GROWS, opened_ours(fd))) {
        if (action) return -1;
        real(fd, bytes, size / 2);
        die();
    }
    return real(fd, bytes, size);
}

#define PWRITE(name, offset)                                                                                           \
    ssize_t name(int fd, const void *bytes, size_t size, offset at) {                                                  \
        REAL(ssize_t, #name, int, const void *, size_t, offset);                                                       \
        if (fails(GROWS, opened_ours(fd))) {                                                                           \
            if (action) return -1;                                                                                     \
            real(fd, bytes, size / 2, at);                                                                             \
            die();                                                                                                     \
        }                                                                                                              \
        return real(fd, bytes, size, at);                                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(type, name, class, parameters, kinds, ...)                                                             \
    type name parameters {                                                                                             \
        REAL(type, #name, kinds);                                                                                      \
        FAIL(class, opened_ours(fd))                                                                                   \
        return real(__VA_ARGS__);                                                                                      \
    }
#define LIST(...) __VA_ARGS__
ON_FILE(int, fsync, SYNCS, (int fd), LIST(int), fd)
ON_FILE(int, fdatasync, SYNCS, (int fd), LIST(int), fd)
ON_FILE(int, ftruncate, GROWS, (int fd, off_t size), LIST(int, off_t), fd, size)
ON_FILE(int, ftruncate64, GROWS, (int fd, off64_t size), LIST(int, off64_t), fd, size)
ON_FILE(ssize_t, read, READS, (int fd, void *bytes, size_t size), LIST(int, void *, size_t), fd, bytes, size)
ON_FILE(ssize_t, pread, READS, (int fd, void *bytes, size_t size, off_t at), LIST(int, void *, size_t, off_t), fd,
        bytes, size, at)
ON_FILE(ssize_t, pread64, READS, (int fd, void *bytes, size_t size, off64_t at), LIST(int, void *, size_t, off64_t),
        fd, bytes, size, at)

#define ON_NAME(name, class, parameters, kinds, ours, ...)                                                             \
    int name parameters {                                                                                              \
        REAL(int, #name, kinds);                                                                                       \
        FAIL(class, ours)                                                                                              \
        return real(__VA_ARGS__);                                                                                      \
    }
ON_NAME(rename, NAMES, (const char *old, const char *new), LIST(const char *, const char *),
        names_ours(AT_FDCWD, new), old, new)
ON_NAME(unlink, NAMES, (const char *path), LIST(const char *), names_ours(AT_FDCWD, path), path)
ON_NAME(rmdir, NAMES, (const char *path), LIST(const char *), names_ours(AT_FDCWD, path), path)
ON_NAME(unlinkat, NAMES, (int at, const char *path, int flags), LIST(int, const char *, int), names_ours(at, path), at,
        path, flags)
ON_NAME(mkdir, GROWS, (const char *path, mode_t mode), LIST(const char *, mode_t), names_ours(AT_FDCWD, path), path,
        mode)
ON_NAME(link, GROWS, (const char *old, const char *new), LIST(const char *, const char *), names_ours(AT_FDCWD, new),
        old, new)
ON_NAME(linkat, GROWS, (int from, const char *old, int to, const char *new, int flags),
        LIST(int, const char *, int, const char *, int), names_ours(to, new), from, old, to, new, flags)
