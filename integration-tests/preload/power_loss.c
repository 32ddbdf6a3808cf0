/*
 * Loaded with LD_PRELOAD, lets a process lose at its death what it had not synced, as a machine does when
 * the power goes: writes to files under a folder are held in memory, reads see them, and only fsync and
 * fdatasync carry them to the real file. SIGKILL then loses exactly the rest.
 *
 *   POWER_LOSS_FOLDER  the folder; nothing else is touched
 *   POWER_LOSS_SYNCS   a number: after so many of them fsync and fdatasync return success and carry nothing. A
 *                      test that still passes with this proves nothing.
 *
 * Held back: write, pwrite, writev, pwritev, pwritev2. Done at once: truncate, fallocate, rename, unlink and create, since a
 * disk may have done them too; what was written into a file that is renamed stays held back. A process that ends by
 * exit() writes everything, as the kernel does when only the process ends. Not supported: mmap, io_uring, O_DIRECT, fork.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define FDS_MAX 65536
#define FILES_MAX 4096

/* The next definition of a libc function, looked up once. */
#define REAL(name) ((__typeof__(&name))real(#name, &real_##name))
#define DECLARE(name) static void *real_##name
static void *real(const char *name, void **slot) {
    void *found = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (!found) {
        found = dlsym(RTLD_NEXT, name);
        if (!found) {
            fprintf(stderr, "power_loss: libc has no %s\n", name);
            abort();
        }
        __atomic_store_n(slot, found, __ATOMIC_RELEASE);
    }
    return found;
}

DECLARE(open);
DECLARE(openat);
DECLARE(close);
DECLARE(read);
DECLARE(write);
DECLARE(readv);
DECLARE(writev);
DECLARE(pread);
DECLARE(pwrite);
DECLARE(preadv);
DECLARE(pwritev);
DECLARE(pwritev2);
DECLARE(fsync);
DECLARE(fdatasync);
DECLARE(ftruncate);
DECLARE(fallocate);
DECLARE(lseek);
DECLARE(fstat);
DECLARE(stat);
DECLARE(lstat);
DECLARE(fstatat);
DECLARE(statx);
DECLARE(rename);
DECLARE(renameat);
DECLARE(unlink);
DECLARE(unlinkat);
DECLARE(copy_file_range);

/* ---- what is held back ------------------------------------------------------------------------------ */

/* Pages of one file that differ from the disk: open addressing, index + 1 as key, 0 for free. */
struct file {
    dev_t device;
    ino_t inode;
    int used;
    char *path;   /* where it was when it was first written to */
    uint64_t end; /* behind the last byte held; may lie behind the end of the real file */
    uint64_t *keys;
    char **pages;
    size_t capacity, count;
};

static struct file files[FILES_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Per descriptor: not looked at yet, below the folder, or not. */
enum { UNKNOWN = 0, HELD = 1, PASSED = 2 };
static unsigned char watched[FDS_MAX];
static unsigned char write_through[FDS_MAX];

static char folder[PATH_MAX];
static size_t folder_length;
static long syncs_left = -1; /* until they are ignored; below zero: never */

__attribute__((constructor)) static void start(void) {
    const char *named = getenv("POWER_LOSS_FOLDER");
    const char *syncs = getenv("POWER_LOSS_SYNCS");
    if (named && realpath(named, folder)) folder_length = strlen(folder);
    if (syncs) syncs_left = strtol(syncs, NULL, 10);
}

static size_t slot_of(const struct file *file, uint64_t page) {
    size_t at = (page * 0x9E3779B97F4A7C15ull) % file->capacity;
    while (file->keys[at] && file->keys[at] != page + 1) at = (at + 1) % file->capacity;
    return at;
}

static void *must(void *allocated) {
    if (!allocated) {
        fprintf(stderr, "power_loss: out of memory\n");
        abort();
    }
    return allocated;
}

static char *held_page(const struct file *file, uint64_t page) {
    if (!file->capacity) return NULL;
    size_t at = slot_of(file, page);
    return file->keys[at] ? file->pages[at] : NULL;
}

static void grow(struct file *file) {
    struct file larger = *file;
    larger.capacity = file->capacity ? file->capacity * 2 : 64;
    larger.keys = must(calloc(larger.capacity, sizeof *larger.keys));
    larger.pages = must(calloc(larger.capacity, sizeof *larger.pages));
    for (size_t i = 0; i < file->capacity; i++) {
        if (!file->keys[i]) continue;
        size_t at = slot_of(&larger, file->keys[i] - 1);
        larger.keys[at] = file->keys[i];
        larger.pages[at] = file->pages[i];
    }
    free(file->keys);
    free(file->pages);
    *file = larger;
}

static void forget_pages(struct file *file) {
    for (size_t i = 0; i < file->capacity; i++)
        if (file->keys[i]) free(file->pages[i]);
    free(file->keys);
    free(file->pages);
    file->keys = NULL;
    file->pages = NULL;
    file->capacity = file->count = 0;
    file->end = 0;
}

static struct file *find(dev_t device, ino_t inode) {
    for (int i = 0; i < FILES_MAX; i++)
        if (files[i].used && files[i].inode == inode && files[i].device == device) return &files[i];
    return NULL;
}

static struct file *find_or_add(int fd, dev_t device, ino_t inode) {
    struct file *file = find(device, inode);
    if (file) return file;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].used) continue;
        files[i].used = 1;
        files[i].device = device;
        files[i].inode = inode;
        files[i].path = must(strdup(path));
        return &files[i];
    }
    fprintf(stderr, "power_loss: more than %d files\n", FILES_MAX);
    abort();
}

static void forget_file(dev_t device, ino_t inode) {
    struct file *file = find(device, inode);
    if (!file) return;
    forget_pages(file);
    free(file->path);
    file->used = 0;
}

/* ---- descriptors ------------------------------------------------------------------------------------ */

static int is_held(int fd) {
    if (!folder_length || fd < 0 || fd >= FDS_MAX) return 0;
    if (watched[fd] == UNKNOWN) {
        char link[64], path[PATH_MAX];
        struct stat about;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int saved = errno;
        ssize_t length = readlink(link, path, sizeof path - 1);
        int below = length > (ssize_t)folder_length && !memcmp(path, folder, folder_length) &&
                    path[folder_length] == '/' && !REAL(fstat)(fd, &about) && S_ISREG(about.st_mode);
        errno = saved;
        watched[fd] = below ? HELD : PASSED;
    }
    return watched[fd] == HELD;
}

static void opened(int fd, int flags) {
    if (fd < 0 || fd >= FDS_MAX) return;
    watched[fd] = UNKNOWN;
    write_through[fd] = (flags & (O_DSYNC | O_SYNC)) != 0;
    if ((flags & O_TRUNC) && is_held(fd)) {
        struct stat about;
        if (REAL(fstat)(fd, &about)) return;
        pthread_mutex_lock(&lock);
        forget_file(about.st_dev, about.st_ino);
        pthread_mutex_unlock(&lock);
    }
}

#define MODE_OF(flags)                                        \
    mode_t mode = 0;                                          \
    if (flags & (O_CREAT | __O_TMPFILE)) {                    \
        va_list arguments;                                    \
        va_start(arguments, flags);                           \
        mode = va_arg(arguments, mode_t);                     \
        va_end(arguments);                                    \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    int fd = REAL(open)(path, flags, mode);
    opened(fd, flags);
    return fd;
}
int open64(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open(path, flags | O_LARGEFILE, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE_OF(flags)
    int fd = REAL(openat)(at, path, flags, mode);
    opened(fd, flags);
    return fd;
}
int openat64(int at, const char *path, int flags, ...) {
    MODE_OF(flags)
    return openat(at, path, flags | O_LARGEFILE, mode);
}
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX) watched[fd] = UNKNOWN;
    return REAL(close)(fd);
}

/* ---- reading and writing, with the lock held -------------------------------------------------------- */

static ssize_t read_real(int fd, char *to, size_t count, uint64_t at) {
    size_t done = 0;
    while (done < count) {
        ssize_t n = REAL(pread)(fd, to + done, count - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int readable_and_writable(int fd, int *opened_here) {
    *opened_here = 0;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR) return fd;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int other = REAL(open)(link, O_RDWR | O_CLOEXEC, 0);
    if (other < 0) return -1;
    if (other < FDS_MAX) watched[other] = UNKNOWN;
    *opened_here = 1;
    return other;
}

static char *page_to_write(struct file *file, int fd, uint64_t page) {
    char *held = held_page(file, page);
    if (held) return held;
    if (file->count * 2 >= file->capacity) grow(file);
    held = must(aligned_alloc(PAGE, PAGE));
    memset(held, 0, PAGE);
    if (read_real(fd, held, PAGE, page * PAGE) < 0) {
        free(held);
        return NULL;
    }
    size_t at = slot_of(file, page);
    file->keys[at] = page + 1;
    file->pages[at] = held;
    file->count++;
    return held;
}

static ssize_t hold(struct file *file, int fd, const char *from, size_t count, uint64_t at) {
    int here, both = readable_and_writable(fd, &here);
    if (both < 0) return -1;
    size_t done = 0;
    while (done < count) {
        uint64_t page = (at + done) / PAGE;
        size_t within = (at + done) % PAGE, some = PAGE - within;
        if (some > count - done) some = count - done;
        char *held = page_to_write(file, both, page);
        if (!held) break;
        memcpy(held + within, from + done, some);
        done += some;
        if (at + done > file->end) file->end = at + done;
    }
    if (here) REAL(close)(both);
    return done || !count ? (ssize_t)done : -1;
}

static uint64_t size_seen(const struct file *file, const struct stat *about) {
    uint64_t real_size = (uint64_t)about->st_size;
    return file && file->end > real_size ? file->end : real_size;
}

static ssize_t read_held(struct file *file, const struct stat *about, int fd, char *to, size_t count, uint64_t at) {
    uint64_t size = size_seen(file, about);
    if (at >= size) return 0;
    if (count > size - at) count = size - at;
    ssize_t real_bytes = read_real(fd, to, count, at);
    if (real_bytes < 0) return -1;
    memset(to + real_bytes, 0, count - (size_t)real_bytes);
    for (uint64_t page = at / PAGE; page * PAGE < at + count; page++) {
        char *held = held_page(file, page);
        if (!held) continue;
        uint64_t first = page * PAGE > at ? page * PAGE : at;
        uint64_t end = (page + 1) * PAGE < at + count ? (page + 1) * PAGE : at + count;
        memcpy(to + (first - at), held + (first - page * PAGE), end - first);
    }
    return (ssize_t)count;
}

/* Carries what is held of a file to the real one, in no order: a disk promises none. */
static int carry(struct file *file, int fd) {
    if (!file || !file->count) return 0;
    int here, both = readable_and_writable(fd, &here);
    if (both < 0) return -1;
    struct stat about;
    int failed = REAL(fstat)(both, &about);
    uint64_t size = failed ? 0 : size_seen(file, &about);
    for (size_t i = 0; i < file->capacity && !failed; i++) {
        if (!file->keys[i]) continue;
        uint64_t at = (file->keys[i] - 1) * PAGE;
        size_t count = size - at < PAGE ? (size_t)(size - at) : PAGE, done = 0;
        while (done < count && !failed) {
            ssize_t n = REAL(pwrite)(both, file->pages[i] + done, count - done, (off_t)(at + done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) failed = 1;
            else done += (size_t)n;
        }
    }
    if (!failed) forget_pages(file);
    if (here) REAL(close)(both);
    return failed ? -1 : 0;
}

/* ---- the calls -------------------------------------------------------------------------------------- */

static ssize_t write_vector(int fd, const struct iovec *parts, int count, int64_t at, int through) {
    struct stat about;
    if (REAL(fstat)(fd, &about)) return -1;
    pthread_mutex_lock(&lock);
    struct file *file = find_or_add(fd, about.st_dev, about.st_ino);
    int by_position = at >= 0;
    if (fcntl(fd, F_GETFL) & O_APPEND) at = (int64_t)size_seen(file, &about);
    else if (!by_position) at = REAL(lseek)(fd, 0, SEEK_CUR);
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n = hold(file, fd, parts[i].iov_base, parts[i].iov_len, (uint64_t)(at + done));
        if (n < 0) {
            if (!done) done = -1;
            break;
        }
        done += n;
        if ((size_t)n < parts[i].iov_len) break;
    }
    if (done > 0 && !by_position) REAL(lseek)(fd, at + done, SEEK_SET);
    if (done > 0 && (through || write_through[fd]) && syncs_left != 0 && carry(file, fd)) done = -1;
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t read_vector(int fd, const struct iovec *parts, int count, int64_t at) {
    struct stat about;
    pthread_mutex_lock(&lock);
    if (REAL(fstat)(fd, &about)) {
        pthread_mutex_unlock(&lock);
        return -1;
    }
    struct file *file = find(about.st_dev, about.st_ino);
    int by_position = at >= 0;
    if (!file || !file->count) {
        pthread_mutex_unlock(&lock);
        return by_position ? REAL(preadv)(fd, parts, count, at) : REAL(readv)(fd, parts, count);
    }
    if (!by_position) at = REAL(lseek)(fd, 0, SEEK_CUR);
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n = read_held(file, &about, fd, parts[i].iov_base, parts[i].iov_len, (uint64_t)(at + done));
        if (n < 0) {
            if (!done) done = -1;
            break;
        }
        done += n;
        if ((size_t)n < parts[i].iov_len) break;
    }
    if (done > 0 && !by_position) REAL(lseek)(fd, at + done, SEEK_SET);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *from, size_t count) {
    if (!is_held(fd)) return REAL(write)(fd, from, count);
    struct iovec part = {(void *)from, count};
    return write_vector(fd, &part, 1, -1, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_held(fd)) return REAL(writev)(fd, parts, count);
    return write_vector(fd, parts, count, -1, 0);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    if (!is_held(fd)) return REAL(pwrite)(fd, from, count, at);
    struct iovec part = {(void *)from, count};
    return write_vector(fd, &part, 1, at, 0);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) { return pwrite(fd, from, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    if (!is_held(fd)) return REAL(pwritev)(fd, parts, count, at);
    return write_vector(fd, parts, count, at, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    if (!is_held(fd)) return REAL(pwritev2)(fd, parts, count, at, flags);
    return write_vector(fd, parts, count, at, (flags & (RWF_DSYNC | RWF_SYNC)) != 0);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}

ssize_t read(int fd, void *to, size_t count) {
    if (!is_held(fd)) return REAL(read)(fd, to, count);
    struct iovec part = {to, count};
    return read_vector(fd, &part, 1, -1);
}
ssize_t readv(int fd, const struct iovec *parts, int count) {
    if (!is_held(fd)) return REAL(readv)(fd, parts, count);
    return read_vector(fd, parts, count, -1);
}
ssize_t pread(int fd, void *to, size_t count, off_t at) {
    if (!is_held(fd)) return REAL(pread)(fd, to, count, at);
    struct iovec part = {to, count};
    return read_vector(fd, &part, 1, at);
}
ssize_t pread64(int fd, void *to, size_t count, off64_t at) { return pread(fd, to, count, at); }
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) {
    if (!is_held(fd)) return REAL(preadv)(fd, parts, count, at);
    return read_vector(fd, parts, count, at);
}
ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at) { return preadv(fd, parts, count, at); }
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    (void)flags;
    return at < 0 ? readv(fd, parts, count) : preadv(fd, parts, count, at);
}
ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    return preadv2(fd, parts, count, at, flags);
}

static int carry_and_sync(int fd, int (*sync)(int)) {
    if (!is_held(fd)) return sync(fd);
    struct stat about;
    if (REAL(fstat)(fd, &about)) return -1;
    pthread_mutex_lock(&lock);
    if (syncs_left == 0) {
        pthread_mutex_unlock(&lock);
        return 0;
    }
    if (syncs_left > 0) syncs_left--;
    int failed = carry(find(about.st_dev, about.st_ino), fd);
    pthread_mutex_unlock(&lock);
    if (failed) {
        errno = EIO;
        return -1;
    }
    return sync(fd);
}
int fsync(int fd) { return carry_and_sync(fd, REAL(fsync)); }
int fdatasync(int fd) { return carry_and_sync(fd, REAL(fdatasync)); }

/* Zeroes what is held from `at` to `end`. */
static void zero_held(struct file *file, uint64_t at, uint64_t end) {
    for (size_t i = 0; i < file->capacity; i++) {
        if (!file->keys[i]) continue;
        uint64_t page_first = (file->keys[i] - 1) * PAGE, page_end = page_first + PAGE;
        uint64_t first = page_first > at ? page_first : at;
        uint64_t last = page_end < end ? page_end : end;
        if (first < last) memset(file->pages[i] + (first - page_first), 0, last - first);
    }
}

int ftruncate(int fd, off_t size) {
    if (!is_held(fd)) return REAL(ftruncate)(fd, size);
    struct stat about;
    if (REAL(fstat)(fd, &about)) return -1;
    pthread_mutex_lock(&lock);
    int failed = REAL(ftruncate)(fd, size);
    struct file *file = find(about.st_dev, about.st_ino);
    if (!failed && file) {
        zero_held(file, (uint64_t)size, UINT64_MAX);
        if (file->end > (uint64_t)size) file->end = (uint64_t)size;
    }
    pthread_mutex_unlock(&lock);
    return failed;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int fallocate(int fd, int mode, off_t at, off_t count) {
    int failed = REAL(fallocate)(fd, mode, at, count);
    struct stat about;
    if (failed || !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) || !is_held(fd) || REAL(fstat)(fd, &about))
        return failed;
    pthread_mutex_lock(&lock);
    struct file *file = find(about.st_dev, about.st_ino);
    if (file) zero_held(file, (uint64_t)at, (uint64_t)at + (uint64_t)count);
    pthread_mutex_unlock(&lock);
    return 0;
}
int fallocate64(int fd, int mode, off64_t at, off64_t count) { return fallocate(fd, mode, at, count); }

off_t lseek(int fd, off_t by, int from) {
    if (from == SEEK_END && is_held(fd)) {
        struct stat about;
        if (REAL(fstat)(fd, &about)) return -1;
        pthread_mutex_lock(&lock);
        off_t size = (off_t)size_seen(find(about.st_dev, about.st_ino), &about);
        pthread_mutex_unlock(&lock);
        return REAL(lseek)(fd, size + by, SEEK_SET);
    }
    return REAL(lseek)(fd, by, from);
}
off64_t lseek64(int fd, off64_t by, int from) { return lseek(fd, by, from); }

/* ---- sizes as the process sees them ----------------------------------------------------------------- */

static int seen(int failed, struct stat *about) {
    if (!failed && folder_length && S_ISREG(about->st_mode)) {
        pthread_mutex_lock(&lock);
        about->st_size = (off_t)size_seen(find(about->st_dev, about->st_ino), about);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
int fstat(int fd, struct stat *about) { return seen(REAL(fstat)(fd, about), about); }
int stat(const char *path, struct stat *about) { return seen(REAL(stat)(path, about), about); }
int lstat(const char *path, struct stat *about) { return seen(REAL(lstat)(path, about), about); }
int fstatat(int at, const char *path, struct stat *about, int flags) {
    return seen(REAL(fstatat)(at, path, about, flags), about);
}
int fstat64(int fd, struct stat64 *about) { return fstat(fd, (struct stat *)about); }
int stat64(const char *path, struct stat64 *about) { return stat(path, (struct stat *)about); }
int lstat64(const char *path, struct stat64 *about) { return lstat(path, (struct stat *)about); }
int fstatat64(int at, const char *path, struct stat64 *about, int flags) {
    return fstatat(at, path, (struct stat *)about, flags);
}
int statx(int at, const char *path, int flags, unsigned mask, struct statx *about) {
    int failed = REAL(statx)(at, path, flags, mask, about);
    if (!failed && folder_length && S_ISREG(about->stx_mode)) {
        struct stat plain = {0};
        plain.st_size = (off_t)about->stx_size;
        dev_t device = makedev(about->stx_dev_major, about->stx_dev_minor);
        pthread_mutex_lock(&lock);
        about->stx_size = size_seen(find(device, about->stx_ino), &plain);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}

/* ---- names: a file that goes takes what is held of it along, since its inode may be used again ------- */

static int inode_that_goes(int at, const char *path, struct stat *about) {
    return folder_length && !REAL(fstatat)(at, path, about, AT_SYMLINK_NOFOLLOW) && S_ISREG(about->st_mode) &&
           about->st_nlink == 1;
}
static int gone(int failed, int goes, const struct stat *about) {
    if (!failed && goes) {
        pthread_mutex_lock(&lock);
        forget_file(about->st_dev, about->st_ino);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
int unlink(const char *path) {
    struct stat about;
    int goes = inode_that_goes(AT_FDCWD, path, &about);
    return gone(REAL(unlink)(path), goes, &about);
}
int unlinkat(int at, const char *path, int flags) {
    struct stat about;
    int goes = inode_that_goes(at, path, &about);
    return gone(REAL(unlinkat)(at, path, flags), goes, &about);
}
int rename(const char *from, const char *to) {
    struct stat about;
    int goes = inode_that_goes(AT_FDCWD, to, &about);
    return gone(REAL(rename)(from, to), goes, &about);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
    struct stat about;
    int goes = inode_that_goes(to_at, to, &about);
    return gone(REAL(renameat)(from_at, from, to_at, to), goes, &about);
}

/* The kernel would copy the real file, without what is held: let the caller read and write instead. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t count, unsigned flags) {
    if (is_held(in) || is_held(out)) {
        errno = EXDEV;
        return -1;
    }
    return REAL(copy_file_range)(in, in_at, out, out_at, count, flags);
}

/* ---- the end ---------------------------------------------------------------------------------------- */

/* Only the process ends, not the machine: the kernel would still write what is in its cache. */
__attribute__((destructor)) static void end(void) {
    if (syncs_left == 0) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FILES_MAX; i++) {
        if (!files[i].used || !files[i].count) continue;
        struct stat about;
        int fd = REAL(open)(files[i].path, O_RDWR | O_CLOEXEC, 0);
        if (fd < 0) continue;
        if (!REAL(fstat)(fd, &about) && about.st_ino == files[i].inode && about.st_dev == files[i].device)
            carry(&files[i], fd);
        REAL(close)(fd);
    }
    pthread_mutex_unlock(&lock);
}
