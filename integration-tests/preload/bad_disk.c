/*
 * Loaded with LD_PRELOAD, lets the disk below a folder fail while the process runs.
 *
 *   BAD_DISK_FOLDER  the folder; nothing else is touched
 *   BAD_DISK_FILE    a file that says how; without it, or with another word in it, the disk is well:
 *                    "full"  nothing more is allocated (ENOSPC), and there is no free space; what was allocated can be written
 *                    "sync"  the first fsync or fdatasync of each file fails with EIO. Later ones of that file return success and
 *                            carry nothing, as a kernel does that has dropped the pages it could not write.
 *
 * The paths of files whose sync has failed are appended to BAD_DISK_FILE.failed, those that were synced again to BAD_DISK_FILE.again:
 * who believes the second answer believes in data that is gone.
 *
 * Before power_loss in LD_PRELOAD, what a failed sync did not carry is lost at the process's death.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 4096

enum mood { WELL, FULL, SYNC };

static const char *file, *folder;
static size_t folder_length;

#define NEXT(name) ((__typeof__(&name))next(#name))
static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "bad_disk: libc has no %s\n", name);
        abort();
    }
    return found;
}

__attribute__((constructor)) static void start(void) {
    file = getenv("BAD_DISK_FILE");
    folder = getenv("BAD_DISK_FOLDER");
    folder_length = folder ? strlen(folder) : 0;
}

static enum mood mood(void) {
    char word[8] = "";
    int saved = errno;
    int fd = file && folder ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        ssize_t length = read(fd, word, sizeof word - 1);
        word[length > 0 ? length : 0] = 0;
        close(fd);
    }
    errno = saved;
    return !strncmp(word, "full", 4) ? FULL : !strncmp(word, "sync", 4) ? SYNC : WELL;
}

/* Whether the descriptor is of something below the folder; its path is put into `path`. */
static int below(int fd, char path[PATH_MAX]) {
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    errno = saved;
    return length >= (ssize_t)folder_length && !memcmp(path, folder, folder_length);
}

/* ---- a full disk ------------------------------------------------------------------------------------ */

static int no_room(int fd, off_t end) {
    char path[PATH_MAX];
    struct stat about;
    if (mood() != FULL || !below(fd, path) || fstat(fd, &about)) return 0;
    if (!S_ISREG(about.st_mode) || end <= about.st_size) return 0;
    errno = ENOSPC;
    return 1;
}

static off_t length_of(const struct iovec *parts, int count) {
    off_t length = 0;
    for (int i = 0; i < count; i++) length += (off_t)parts[i].iov_len;
    return length;
}

static off_t here(int fd) {
    struct stat about;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &about)) return about.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

/* Files are written without a position at all only in small numbers: sockets and pipes must not be slowed down. */
static int is_file(int fd) {
    struct stat about;
    return mood() == FULL && !fstat(fd, &about) && S_ISREG(about.st_mode);
}

ssize_t write(int fd, const void *from, size_t count) {
    if (file && is_file(fd) && no_room(fd, here(fd) + (off_t)count)) return -1;
    return NEXT(write)(fd, from, count);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    return no_room(fd, at + (off_t)count) ? -1 : NEXT(pwrite)(fd, from, count, at);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) { return pwrite(fd, from, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return no_room(fd, at + length_of(parts, count)) ? -1 : NEXT(pwritev)(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }
int fallocate(int fd, int how, off_t at, off_t length) {
    return no_room(fd, at + length) ? -1 : NEXT(fallocate)(fd, how, at, length);
}
int fallocate64(int fd, int how, off64_t at, off64_t length) { return fallocate(fd, how, at, length); }
int ftruncate(int fd, off_t length) { return no_room(fd, length) ? -1 : NEXT(ftruncate)(fd, length); }
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int statvfs(const char *path, struct statvfs *about) {
    int failed = NEXT(statvfs)(path, about);
    if (!failed && mood() == FULL && !strncmp(path, folder, folder_length)) about->f_bfree = about->f_bavail = 0;
    return failed;
}
int statvfs64(const char *path, struct statvfs64 *about) { return statvfs(path, (struct statvfs *)about); }
int fstatvfs(int fd, struct statvfs *about) {
    char path[PATH_MAX];
    int failed = NEXT(fstatvfs)(fd, about);
    if (!failed && mood() == FULL && below(fd, path)) about->f_bfree = about->f_bavail = 0;
    return failed;
}
int fstatvfs64(int fd, struct statvfs64 *about) { return fstatvfs(fd, (struct statvfs *)about); }

/* ---- syncs that fail -------------------------------------------------------------------------------- */

static struct { dev_t device; ino_t inode; } failed[FILES_MAX];
static int failed_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void tell(const char *ending, const char *path) {
    char name[PATH_MAX + 16];
    snprintf(name, sizeof name, "%s.%s", file, ending);
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    dprintf(fd, "%s\n", path);
    close(fd);
}

/* -1: it fails; 1: it returns success and does nothing; 0: it is done. */
static int what_becomes_of(int fd) {
    char path[PATH_MAX];
    struct stat about;
    enum mood now = mood();
    if (!file || !folder || (now != SYNC && !failed_count) || !below(fd, path) || fstat(fd, &about)) return 0;
    pthread_mutex_lock(&lock);
    int known = 0;
    for (int i = 0; i < failed_count; i++) known |= failed[i].device == about.st_dev && failed[i].inode == about.st_ino;
    int fails = !known && now == SYNC && failed_count < FILES_MAX;
    if (fails) {
        failed[failed_count].device = about.st_dev;
        failed[failed_count++].inode = about.st_ino;
    }
    pthread_mutex_unlock(&lock);
    if (known) tell("again", path);
    if (fails) {
        tell("failed", path);
        errno = EIO;
    }
    return fails ? -1 : known;
}

int fsync(int fd) {
    int becomes = what_becomes_of(fd);
    return becomes < 0 ? -1 : becomes ? 0 : NEXT(fsync)(fd);
}
int fdatasync(int fd) {
    int becomes = what_becomes_of(fd);
    return becomes < 0 ? -1 : becomes ? 0 : NEXT(fdatasync)(fd);
}
