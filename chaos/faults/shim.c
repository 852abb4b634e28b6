/* Preloaded into a process: its disk fails and its clock jumps while it runs, as a mapped control file says.
 *
 * FAULTS_CONTROL: that file (edge_shim.py has the same structures); without it, or while no rule is on, every call goes through.
 * Rules name files by a shell pattern over the whole path (* matches / too). Not touched: sockets, reads, writes through mmap.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX 16
#define REALTIME_S_MIN 1000000000L /* an absolute time above this is of CLOCK_REALTIME: no machine has been up for 30 years */

enum { OP_WRITE = 1, OP_SYNC = 2, OP_OPEN = 4, OP_RENAME = 8, OP_TRUNCATE = 16, OP_UNLINK = 32, OP_MKDIR = 64 };
enum { GO_ON = 0, FAIL = 1, LIE = 2 };
enum { ACT_FAIL = 0, ACT_LIE = 1, ACT_KILL = 2, ACT_STOP = 3 };

struct rule {
    char pattern[256];
    uint32_t op;
    int32_t error;
    uint32_t act, delay_ms;
    _Atomic int32_t skip, times;
    _Atomic uint32_t hits, active;
};
struct control {
    char magic[8];
    _Atomic int64_t clock_offset_ns, clock_since_ns, clock_drift_ppm;
    _Atomic uint32_t rules_on, pad;
    struct rule rules[RULES_MAX];
};

static struct control *control;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off64_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off64_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, renameat, int, const char *, int, const char *);
REAL(int, ftruncate, int, off64_t);
REAL(int, fallocate, int, int, off64_t, off64_t);
REAL(int, unlink, const char *);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdir, const char *, mode_t);
REAL(int, clock_gettime, clockid_t, struct timespec *);
REAL(int, cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
REAL(int, sem_timedwait, sem_t *, const struct timespec *);

#define LOAD(name, symbol) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, symbol)
static void load(void) {
    LOAD(open, "open64"); LOAD(openat, "openat64"); LOAD(write, "write"); LOAD(pwrite, "pwrite64"); LOAD(writev, "writev");
    LOAD(pwritev, "pwritev64"); LOAD(fsync, "fsync"); LOAD(fdatasync, "fdatasync"); LOAD(rename, "rename");
    LOAD(renameat, "renameat"); LOAD(ftruncate, "ftruncate64"); LOAD(fallocate, "fallocate64"); LOAD(unlink, "unlink");
    LOAD(unlinkat, "unlinkat"); LOAD(mkdir, "mkdir");
    LOAD(clock_gettime, "clock_gettime"); LOAD(sem_timedwait, "sem_timedwait");
    real_cond_timedwait = (__typeof__(real_cond_timedwait))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real_cond_timedwait) LOAD(cond_timedwait, "pthread_cond_timedwait"); /* machines whose glibc began later */
}
static void ready(void) { if (!real_mkdir || !real_cond_timedwait) load(); }

__attribute__((constructor)) static void start(void) {
    ready();
    const char *name = getenv("FAULTS_CONTROL");
    if (!name) return;
    int fd = real_open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED && !memcmp(((struct control *)at)->magic, "ZBFLT01", 8)) control = at;
}

/* ------------------------------------------------------------------------------------------------------------------- disk */

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0 || path[0] != '/') return 0;
    path[n] = 0;
    return 1;
}

static int whole(int dir, const char *path, char *out) { /* of a file that may not exist yet */
    char joined[PATH_MAX], folder[PATH_MAX];
    if (path[0] == '/') { if (snprintf(joined, sizeof joined, "%s", path) >= (int)sizeof joined) return 0; }
    else {
        char at[PATH_MAX];
        if (dir == AT_FDCWD ? !getcwd(at, sizeof at) : !path_of(dir, at)) return 0;
        if (snprintf(joined, sizeof joined, "%s/%s", at, path) >= (int)sizeof joined) return 0;
    }
    char *cut = strrchr(joined, '/');
    *cut = 0;
    if (!realpath(joined[0] ? joined : "/", folder)) return 0;
    return snprintf(out, PATH_MAX, "%s/%s", folder, cut + 1) < PATH_MAX;
}

static int judged(const char *path, unsigned op) {
    int result = GO_ON;
    for (int i = 0; i < RULES_MAX; i++) {
        struct rule *rule = &control->rules[i];
        if (!rule->active || !(rule->op & op) || fnmatch(rule->pattern, path, 0) != 0) continue;
        if (atomic_load(&rule->skip) > 0 && atomic_fetch_sub(&rule->skip, 1) > 0) continue;
        int left = atomic_load(&rule->times);
        if (left == 0 || (left > 0 && atomic_fetch_sub(&rule->times, 1) <= 0)) continue;
        atomic_fetch_add(&rule->hits, 1);
        if (rule->delay_ms) {
            struct timespec wait = {rule->delay_ms / 1000, (long)(rule->delay_ms % 1000) * 1000000};
            nanosleep(&wait, NULL);
        }
        if (rule->act == ACT_KILL) { kill(getpid(), SIGKILL); pause(); }
        if (rule->act == ACT_STOP) { /* the moment of sleep is over only after the process goes on */
            struct timespec moment = {0, 20000000};
            kill(getpid(), SIGSTOP);
            nanosleep(&moment, NULL);
        }
        if (rule->act == ACT_LIE) result = LIE;
        else if (rule->error) { errno = rule->error; return FAIL; }
    }
    return result;
}
static int quiet(void) { ready(); return !control || !atomic_load(&control->rules_on); }
static int of_fd(int fd, unsigned op) {
    char path[PATH_MAX];
    int saved = errno;
    int known = !quiet() && path_of(fd, path);
    errno = saved;
    return known ? judged(path, op) : GO_ON;
}
static int of_path(int dir, const char *name, unsigned op) {
    char path[PATH_MAX];
    int saved = errno;
    int known = !quiet() && whole(dir, name, path);
    errno = saved;
    return known ? judged(path, op) : GO_ON;
}

ssize_t write(int fd, const void *p, size_t n) { return of_fd(fd, OP_WRITE) == FAIL ? -1 : real_write(fd, p, n); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) {
    return of_fd(fd, OP_WRITE) == FAIL ? -1 : real_pwrite(fd, p, n, at);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return pwrite64(fd, p, n, at); }
ssize_t writev(int fd, const struct iovec *p, int n) { return of_fd(fd, OP_WRITE) == FAIL ? -1 : real_writev(fd, p, n); }
ssize_t pwritev64(int fd, const struct iovec *p, int n, off64_t at) {
    return of_fd(fd, OP_WRITE) == FAIL ? -1 : real_pwritev(fd, p, n, at);
}
ssize_t pwritev(int fd, const struct iovec *p, int n, off_t at) { return pwritev64(fd, p, n, at); }
static int synced(int fd, int (*go)(int)) {
    switch (of_fd(fd, OP_SYNC)) { case FAIL: return -1; case LIE: return 0; default: return go(fd); }
}
int fsync(int fd) { ready(); return synced(fd, real_fsync); }
int fdatasync(int fd) { ready(); return synced(fd, real_fdatasync); }
int ftruncate64(int fd, off64_t n) { return of_fd(fd, OP_TRUNCATE) == FAIL ? -1 : real_ftruncate(fd, n); }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    return of_fd(fd, OP_TRUNCATE) == FAIL ? -1 : real_fallocate(fd, mode, at, n);
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int rename(const char *from, const char *to) { return of_path(AT_FDCWD, to, OP_RENAME) == FAIL ? -1 : real_rename(from, to); }
int renameat(int d, const char *from, int e, const char *to) {
    return of_path(e, to, OP_RENAME) == FAIL ? -1 : real_renameat(d, from, e, to);
}
int unlink(const char *path) { return of_path(AT_FDCWD, path, OP_UNLINK) == FAIL ? -1 : real_unlink(path); }
int unlinkat(int dir, const char *path, int flags) {
    return of_path(dir, path, OP_UNLINK) == FAIL ? -1 : real_unlinkat(dir, path, flags);
}
int mkdir(const char *path, mode_t mode) { return of_path(AT_FDCWD, path, OP_MKDIR) == FAIL ? -1 : real_mkdir(path, mode); }

#define MODE(flags) \
    va_list rest; va_start(rest, flags); \
    mode_t mode = (flags) & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest)
static int opened(int dir, const char *path, int flags, mode_t mode) {
    ready();
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    return writes && of_path(dir, path, OP_OPEN) == FAIL ? -1 : real_openat(dir, path, flags, mode);
}
int open(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags); return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags); return opened(dir, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ------------------------------------------------------------------------------------------------------------------ clock */

static int64_t shift_ns(void) {
    if (!control) return 0;
    int64_t shift = atomic_load(&control->clock_offset_ns), drift = atomic_load(&control->clock_drift_ppm);
    if (drift) {
        struct timespec now;
        real_clock_gettime(CLOCK_MONOTONIC, &now);
        shift += ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - atomic_load(&control->clock_since_ns)) / 1000000 * drift;
    }
    return shift;
}
static void moved(struct timespec *t, int64_t by_ns) {
    int64_t ns = (int64_t)t->tv_nsec + by_ns % 1000000000;
    t->tv_sec += by_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
    t->tv_nsec = ns >= 1000000000 ? ns - 1000000000 : ns < 0 ? ns + 1000000000 : ns;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    ready();
    int result = real_clock_gettime(clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) moved(t, shift_ns());
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int timespec_get(struct timespec *t, int base) { return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, t) == 0 ? base : 0; }

/* Who waits until an absolute moment reckoned it by the moved clock; the kernel waits by its own. */
static const struct timespec *kernel_time(const struct timespec *until, struct timespec *room) {
    if (until->tv_sec < REALTIME_S_MIN) return until;
    *room = *until;
    moved(room, -shift_ns());
    return room;
}
int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict until) {
    struct timespec room;
    ready();
    return real_cond_timedwait(c, m, kernel_time(until, &room));
}
int sem_timedwait(sem_t *restrict s, const struct timespec *restrict until) {
    struct timespec room;
    ready();
    return real_sem_timedwait(s, kernel_time(until, &room));
}
