/* Preloaded into one process of a test: its wall clock is off by SHIM_SECONDS, and files are read from other places:
   SHIM_ENTROPY instead of the kernel's figure, SHIM_RANDOM instead of /dev/random. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, time);
    const char *seconds = getenv("SHIM_SECONDS");
    if (done == 0 && id == CLOCK_REALTIME && seconds) time->tv_sec += atol(seconds);
    return done;
}

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    const char *other = NULL;
    if (strcmp(path, "/proc/sys/kernel/random/entropy_avail") == 0) other = getenv("SHIM_ENTROPY");
    if (strcmp(path, "/dev/random") == 0) other = getenv("SHIM_RANDOM");
    return real(other ? other : path, flags, mode);
}
