/*
 * Loaded with LD_PRELOAD, lets a process's clock of the day be wrong, and jump, while it runs. The monotonic clock, by which time-outs and
 * leases go, is left alone: on Linux nobody can set it either.
 *
 *   WRONG_CLOCK_FILE  a file that holds by how many milliseconds the clock is ahead; a number below zero: behind. Without it, right.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The file is looked at no more often. */
#define LOOKS_EVERY_MS 20

static const char *file;
static int (*next_clock_gettime)(clockid_t, struct timespec *);
static long ahead_ms, looked_ms = -LOOKS_EVERY_MS;

__attribute__((constructor)) static void start(void) {
    file = getenv("WRONG_CLOCK_FILE");
    next_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!next_clock_gettime) {
        fprintf(stderr, "wrong_clock: libc has no clock_gettime\n");
        abort();
    }
}

static long asked_ms(void) {
    char text[32];
    int saved = errno, fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[length > 0 ? length : 0] = 0;
    errno = saved;
    return strtol(text, NULL, 10);
}

static long ahead(void) {
    struct timespec now;
    next_clock_gettime(CLOCK_MONOTONIC, &now);
    long ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (ms - __atomic_load_n(&looked_ms, __ATOMIC_RELAXED) >= LOOKS_EVERY_MS) {
        __atomic_store_n(&looked_ms, ms, __ATOMIC_RELAXED);
        __atomic_store_n(&ahead_ms, asked_ms(), __ATOMIC_RELAXED);
    }
    return __atomic_load_n(&ahead_ms, __ATOMIC_RELAXED);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!next_clock_gettime) start();
    int failed = next_clock_gettime(clock, now);
    if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    long ms = ahead();
    now->tv_sec += ms / 1000;
    now->tv_nsec += ms % 1000 * 1000000;
    if (now->tv_nsec >= 1000000000) now->tv_sec++, now->tv_nsec -= 1000000000;
    if (now->tv_nsec < 0) now->tv_sec--, now->tv_nsec += 1000000000;
    return 0;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *into) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
