/*
 * Loaded with LD_PRELOAD, makes a disk slow, or lets it stall, while the process runs: fsync and fdatasync wait before they begin.
 *
 *   SLOW_DISK_FILE  a file that holds how many milliseconds each of them takes longer. Without the file, or with nothing in it, none.
 *                   It is looked at again while one waits: a disk that stalls goes on as soon as the file is gone.
 *
 * Before power_loss in LD_PRELOAD, what waits for its sync is lost at the process's death, as on a real disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOKS_EVERY_MS 5

static const char *file;
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);

__attribute__((constructor)) static void start(void) {
    file = getenv("SLOW_DISK_FILE");
    next_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    next_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (!next_fsync || !next_fdatasync) {
        fprintf(stderr, "slow_disk: libc has no fsync\n");
        abort();
    }
}

static long asked_ms(void) {
    char text[32];
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    return strtol(text, NULL, 10);
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for_the_disk(void) {
    int saved = errno;
    long begun = now_ms();
    struct timespec pause = {0, LOOKS_EVERY_MS * 1000000L};
    while (now_ms() - begun < asked_ms()) nanosleep(&pause, NULL);
    errno = saved;
}

int fsync(int fd) {
    wait_for_the_disk();
    return next_fsync(fd);
}
int fdatasync(int fd) {
    wait_for_the_disk();
    return next_fdatasync(fd);
}
