/* Preloaded recorder: what a process wrote, synced and sent, in a mapped file that survives its SIGKILL; injects disk errors.
 *
 * RECORDER_ROOT: folder whose files are watched.  RECORDER_SIDE: folder of <pid>.rec (this process's record) and `control` (rules).
 * shim.py has the same structures. Modelled: the length of each file at its last returned fsync or fdatasync. Not modelled:
 * overwrites below that length, directory entries (creating, renaming and removing count as durable at once), writes through mmap.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SLOTS_MAX 4096
#define EVENTS_MAX (1u << 20)
#define RULES_MAX 16
#define FDS_MAX 65536
#define PATH_OCTETS 400
#define TOKEN "ZBTK"
#define TOKEN_DIGITS 8

enum { EV_OPEN = 1, EV_WRITE, EV_SYNC, EV_RANGE, EV_RENAME, EV_TRUNCATE, EV_UNLINK, EV_SEND, EV_TOKEN };
enum { OP_WRITE = 1, OP_SYNC = 2, OP_OPEN = 4, OP_RENAME = 8, OP_TRUNCATE = 16, OP_UNLINK = 32 };
enum { FD_UNKNOWN = 0, FD_FILE, FD_SOCKET, FD_OTHER };

struct slot { char path[PATH_OCTETS]; uint64_t dev, ino, baseline, synced; uint32_t gone, syncs; };
struct event { uint64_t begin_ns, end_ns; int32_t kind, slot, fd, error; uint64_t a, b; };
struct header { char magic[8]; uint32_t slots_max, events_max; _Atomic uint32_t slots; uint32_t pad; _Atomic uint64_t events; };
struct rule { char pattern[256]; uint32_t op; int32_t error; _Atomic int32_t skip, times; uint32_t delay_ms, partial; _Atomic uint32_t hits; _Atomic uint32_t active; };

static struct header *head;
static struct slot *slots;
static struct event *events;
static struct rule *rules;
static char root[PATH_OCTETS];
static size_t root_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { _Atomic int kind; int slot; } fds[FDS_MAX];

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, sync_file_range, int, off64_t, off64_t, unsigned);
REAL(int, rename, const char *, const char *);
REAL(int, renameat, int, const char *, int, const char *);
REAL(int, ftruncate, int, off_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(int, unlink, const char *);
REAL(int, unlinkat, int, const char *, int);
REAL(int, close, int);
REAL(int, dup2, int, int);
REAL(ssize_t, send, int, const void *, size_t, int);
REAL(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
REAL(int, sendmmsg, int, struct mmsghdr *, unsigned, int);

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *map(const char *name, size_t octets, int create) {
    int fd = real_open(name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0) return NULL;
    if (create && real_ftruncate(fd, (off_t)octets) != 0) { real_close(fd); return NULL; }
    void *at = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
    return at == MAP_FAILED ? NULL : at;
}

#define LOAD(name, symbol) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, symbol)
static void load(void) {
    LOAD(open, "open64"); LOAD(openat, "openat64"); LOAD(write, "write"); LOAD(pwrite, "pwrite64"); LOAD(writev, "writev");
    LOAD(pwritev, "pwritev64"); LOAD(fsync, "fsync"); LOAD(fdatasync, "fdatasync"); LOAD(sync_file_range, "sync_file_range");
    LOAD(rename, "rename"); LOAD(renameat, "renameat"); LOAD(ftruncate, "ftruncate64"); LOAD(fallocate, "fallocate64");
    LOAD(unlink, "unlink"); LOAD(unlinkat, "unlinkat"); LOAD(close, "close"); LOAD(dup2, "dup2"); LOAD(send, "send");
    LOAD(sendto, "sendto"); LOAD(sendmsg, "sendmsg"); LOAD(sendmmsg, "sendmmsg");
}

__attribute__((constructor)) static void start(void) {
    if (!real_open) load();
    const char *watched = getenv("RECORDER_ROOT"), *side = getenv("RECORDER_SIDE");
    if (!watched || !side || !realpath(watched, root)) return;
    root_length = strlen(root);
    char name[PATH_OCTETS + 32];
    snprintf(name, sizeof name, "%s/control", side);
    rules = map(name, RULES_MAX * sizeof(struct rule), 0);
    snprintf(name, sizeof name, "%s/%d.rec", side, (int)getpid());
    size_t octets = sizeof(struct header) + SLOTS_MAX * sizeof(struct slot) + (size_t)EVENTS_MAX * sizeof(struct event);
    char *at = map(name, octets, 1);
    if (!at) return;
    slots = (struct slot *)(at + sizeof(struct header));
    events = (struct event *)(slots + SLOTS_MAX);
    head = (struct header *)at;
    head->slots_max = SLOTS_MAX;
    head->events_max = EVENTS_MAX;
    memcpy(head->magic, "ZBREC01", 8);
}

static void note(int kind, int slot, int fd, uint64_t begin, int error, uint64_t a, uint64_t b) {
    if (!head) return;
    uint64_t place = atomic_fetch_add(&head->events, 1);
    if (place >= EVENTS_MAX) return; /* shim.py sees events > events_max and refuses to judge */
    events[place] = (struct event){begin, now_ns(), kind, slot, fd, error, a, b};
}

static int watched(const char *path) {
    return root_length && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || !path[root_length]);
}

static int absolute(int dir, const char *path, char *out) { /* of a path whose folder exists */
    char joined[PATH_MAX], folder[PATH_MAX];
    if (path[0] == '/' ) snprintf(joined, sizeof joined, "%s", path);
    else {
        char link[64], at[PATH_MAX / 2];
        ssize_t n;
        if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        if ((n = readlink(link, at, sizeof at - 1)) < 0) return 0;
        at[n] = 0;
        if (snprintf(joined, sizeof joined, "%s/%s", at, path) >= (int)sizeof joined) return 0;
    }
    char *cut = strrchr(joined, '/');
    *cut = 0;
    if (!realpath(joined[0] ? joined : "/", folder)) return 0;
    return snprintf(out, PATH_OCTETS, "%s/%s", folder, cut + 1) < PATH_OCTETS && watched(out);
}

static int slot_for(const char *path, const struct stat *st) { /* under lock */
    uint32_t n = head->slots;
    for (uint32_t i = n; i-- > 0;)
        if (!slots[i].gone && slots[i].ino == st->st_ino && slots[i].dev == st->st_dev && !strcmp(slots[i].path, path)) return (int)i;
    if (n >= SLOTS_MAX) return -1;
    for (uint32_t i = 0; i < n; i++) if (!strcmp(slots[i].path, path)) slots[i].gone = 1;
    snprintf(slots[n].path, PATH_OCTETS, "%s", path);
    slots[n].dev = st->st_dev;
    slots[n].ino = st->st_ino;
    slots[n].baseline = (uint64_t)st->st_size;
    head->slots = n + 1;
    return (int)n;
}

static int classify(int fd) { /* kind; fills fds[fd].slot */
    if (fd < 0 || fd >= FDS_MAX || !head) return FD_OTHER;
    int kind = fds[fd].kind;
    if (kind != FD_UNKNOWN) return kind;
    int saved = errno;
    struct stat st;
    kind = FD_OTHER;
    if (fstat(fd, &st) == 0) {
        if (S_ISSOCK(st.st_mode)) kind = FD_SOCKET;
        else if (S_ISREG(st.st_mode)) {
            char link[64], path[PATH_OCTETS];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, path, sizeof path - 1);
            if (n > 0) {
                path[n] = 0;
                if (watched(path)) {
                    pthread_mutex_lock(&lock);
                    fds[fd].slot = slot_for(path, &st);
                    pthread_mutex_unlock(&lock);
                    if (fds[fd].slot >= 0) kind = FD_FILE;
                }
            }
        }
    }
    fds[fd].kind = kind;
    errno = saved;
    return kind;
}

static void forget(int fd) { if (fd >= 0 && fd < FDS_MAX) fds[fd].kind = FD_UNKNOWN; }

/* 0: go on; >0: errno to fail with; -percent: write only that share. */
static int injected(const char *path, unsigned op) {
    if (!rules) return 0;
    for (int i = 0; i < RULES_MAX; i++) {
        struct rule *rule = &rules[i];
        if (!rule->active || !(rule->op & op) || fnmatch(rule->pattern, path, 0) != 0) continue;
        if (atomic_load(&rule->skip) > 0 && atomic_fetch_sub(&rule->skip, 1) > 0) continue;
        int left = atomic_load(&rule->times);
        if (left == 0) continue;
        if (left > 0 && atomic_fetch_sub(&rule->times, 1) <= 0) continue;
        unsigned hit = atomic_fetch_add(&rule->hits, 1);
        if (rule->delay_ms) {
            struct timespec wait = {rule->delay_ms / 1000, (long)(rule->delay_ms % 1000) * 1000000};
            nanosleep(&wait, NULL);
        }
        if (rule->partial && hit == 0 && op == OP_WRITE) return -(int)rule->partial;
        if (rule->error) return rule->error;
    }
    return 0;
}

static void find_tokens(int slot, int fd, const void *octets, size_t n, uint64_t end, uint64_t begin) {
    const char *at = octets, *stop = at + n;
    while ((at = memmem(at, (size_t)(stop - at), TOKEN, 4)) && stop - at >= 4 + TOKEN_DIGITS) {
        uint64_t number = 0;
        int good = 1;
        for (int i = 0; i < TOKEN_DIGITS; i++) {
            char c = at[4 + i];
            if (c < '0' || c > '9') { good = 0; break; }
            number = number * 10 + (uint64_t)(c - '0');
        }
        if (good) note(EV_TOKEN, slot, fd, begin, 0, number, end);
        at += 4;
    }
}

static void wrote(int fd, uint64_t begin, ssize_t n, int error, uint64_t end, const struct iovec *parts, int count) {
    int slot = fds[fd].slot;
    note(EV_WRITE, slot, fd, begin, n < 0 ? error : 0, end, n < 0 ? 0 : (uint64_t)n);
    if (n > 0) for (int i = 0; i < count; i++) find_tokens(slot, fd, parts[i].iov_base, parts[i].iov_len, end, begin);
}

static void sent(int fd, uint64_t begin, ssize_t n, const struct iovec *parts, size_t count) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    uint64_t port = 0;
    int saved = errno;
    if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0) {
        if (peer.ss_family == AF_INET) port = ntohs(((struct sockaddr_in *)&peer)->sin_port);
        if (peer.ss_family == AF_INET6) port = ntohs(((struct sockaddr_in6 *)&peer)->sin6_port);
    }
    note(EV_SEND, -1, fd, begin, n < 0 ? saved : 0, n < 0 ? 0 : (uint64_t)n, port);
    if (n > 0) for (size_t i = 0; i < count; i++) find_tokens(-1, fd, parts[i].iov_base, parts[i].iov_len, 0, begin);
    errno = saved;
}

static ssize_t any_write(int fd, const struct iovec *parts, int count, off_t offset, ssize_t (*go)(int, const struct iovec *, int, off_t)) {
    if (!real_write) load();
    int kind = classify(fd);
    uint64_t begin = now_ns();
    if (kind == FD_SOCKET) {
        ssize_t n = go(fd, parts, count, offset);
        sent(fd, begin, n, parts, (size_t)count);
        return n;
    }
    if (kind != FD_FILE) return go(fd, parts, count, offset);
    int fault = injected(slots[fds[fd].slot].path, OP_WRITE);
    ssize_t n;
    struct iovec part = parts[0];
    if (fault > 0) { n = -1; errno = fault; }
    else if (fault < 0 && count == 1 && part.iov_len > 1) {
        part.iov_len = part.iov_len * (size_t)-fault / 100;
        n = go(fd, &part, 1, offset);
        parts = &part;
    } else n = go(fd, parts, count, offset);
    int saved = errno;
    off_t end = offset >= 0 ? offset + (n > 0 ? n : 0) : lseek(fd, 0, SEEK_CUR);
    wrote(fd, begin, n, saved, (uint64_t)end, parts, count);
    errno = saved;
    return n;
}

static ssize_t go_write(int fd, const struct iovec *p, int n, off_t at) { (void)n; (void)at; return real_write(fd, p->iov_base, p->iov_len); }
static ssize_t go_pwrite(int fd, const struct iovec *p, int n, off_t at) { (void)n; return real_pwrite(fd, p->iov_base, p->iov_len, at); }
static ssize_t go_writev(int fd, const struct iovec *p, int n, off_t at) { (void)at; return real_writev(fd, p, n); }
static ssize_t go_pwritev(int fd, const struct iovec *p, int n, off_t at) { return real_pwritev(fd, p, n, at); }

ssize_t write(int fd, const void *octets, size_t n) { struct iovec p = {(void *)octets, n}; return any_write(fd, &p, 1, -1, go_write); }
ssize_t pwrite64(int fd, const void *octets, size_t n, off64_t at) { struct iovec p = {(void *)octets, n}; return any_write(fd, &p, 1, at, go_pwrite); }
ssize_t pwrite(int fd, const void *octets, size_t n, off_t at) { return pwrite64(fd, octets, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return any_write(fd, parts, count, -1, go_writev); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return any_write(fd, parts, count, at, go_pwritev); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

static int any_sync(int fd, int data, int (*go)(int)) {
    if (classify(fd) != FD_FILE) return go(fd);
    int slot = fds[fd].slot;
    uint64_t begin = now_ns();
    struct stat st;
    if (fstat(fd, &st) != 0) st.st_size = 0; /* what was written before the sync began, no more */
    int fault = injected(slots[slot].path, OP_SYNC), result;
    if (fault > 0) { result = -1; errno = fault; }
    else result = go(fd);
    int saved = errno;
    if (result == 0) {
        pthread_mutex_lock(&lock);
        slots[slot].synced = (uint64_t)st.st_size > slots[slot].synced ? (uint64_t)st.st_size : slots[slot].synced;
        slots[slot].syncs++;
        pthread_mutex_unlock(&lock);
    }
    note(EV_SYNC, slot, fd, begin, result ? saved : 0, (uint64_t)st.st_size, (uint64_t)data);
    errno = saved;
    return result;
}
int fsync(int fd) { if (!real_fsync) load(); return any_sync(fd, 0, real_fsync); }
int fdatasync(int fd) { if (!real_fdatasync) load(); return any_sync(fd, 1, real_fdatasync); }
int sync_file_range(int fd, off64_t at, off64_t n, unsigned flags) {
    if (!real_sync_file_range) load();
    uint64_t begin = now_ns();
    int result = real_sync_file_range(fd, at, n, flags);
    if (classify(fd) == FD_FILE) note(EV_RANGE, fds[fd].slot, fd, begin, result ? errno : 0, (uint64_t)(at + n), 0);
    return result;
}

static int opened(int fd, const char *path, int flags, uint64_t begin) {
    (void)path;
    if (fd < 0) return fd;
    forget(fd);
    if ((flags & O_ACCMODE) == O_RDONLY || classify(fd) != FD_FILE) return fd;
    int slot = fds[fd].slot;
    if (flags & O_TRUNC) {
        pthread_mutex_lock(&lock);
        slots[slot].synced = slots[slot].baseline = 0;
        pthread_mutex_unlock(&lock);
    }
    note(EV_OPEN, slot, fd, begin, 0, (uint64_t)flags, 0);
    return fd;
}
static int any_open(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_OCTETS];
    if (!real_open) load();
    uint64_t begin = now_ns();
    if (head && (flags & O_ACCMODE) != O_RDONLY && absolute(dir, path, full)) {
        int fault = injected(full, OP_OPEN);
        if (fault > 0) { errno = fault; return -1; }
    }
    return opened(real_openat(dir, path, flags, mode), path, flags, begin);
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE(flags) return any_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return any_open(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return any_open(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return any_open(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return any_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static void renamed(const char *from, const char *to, uint64_t begin) {
    size_t n = strlen(from);
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < head->slots; i++) if (!slots[i].gone && !strcmp(slots[i].path, to)) slots[i].gone = 1;
    for (uint32_t i = 0; i < head->slots; i++) {
        if (slots[i].gone || strncmp(slots[i].path, from, n) || (slots[i].path[n] && slots[i].path[n] != '/')) continue;
        char moved[2 * PATH_OCTETS];
        snprintf(moved, sizeof moved, "%s%s", to, slots[i].path + n);
        snprintf(slots[i].path, PATH_OCTETS, "%.*s", PATH_OCTETS - 1, moved);
        note(EV_RENAME, (int)i, -1, begin, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
}
static int any_rename(int d1, const char *from, int d2, const char *to) {
    if (!real_renameat) load();
    char a[PATH_OCTETS], b[PATH_OCTETS];
    int known = head && absolute(d1, from, a) && absolute(d2, to, b);
    uint64_t begin = now_ns();
    int fault = known ? injected(b, OP_RENAME) : 0;
    if (fault > 0) { errno = fault; return -1; }
    int result = real_renameat(d1, from, d2, to);
    if (result == 0 && known) renamed(a, b, begin);
    return result;
}
int rename(const char *from, const char *to) { return any_rename(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int d1, const char *from, int d2, const char *to) { return any_rename(d1, from, d2, to); }

int ftruncate64(int fd, off64_t length) {
    if (!real_ftruncate) load();
    uint64_t begin = now_ns();
    int kind = classify(fd), slot = kind == FD_FILE ? fds[fd].slot : -1;
    int fault = slot >= 0 ? injected(slots[slot].path, OP_TRUNCATE) : 0;
    if (fault > 0) { errno = fault; return -1; }
    int result = real_ftruncate(fd, length);
    if (slot >= 0 && result == 0) {
        pthread_mutex_lock(&lock);
        if (slots[slot].synced > (uint64_t)length) slots[slot].synced = (uint64_t)length;
        if (slots[slot].baseline > (uint64_t)length) slots[slot].baseline = (uint64_t)length;
        pthread_mutex_unlock(&lock);
        note(EV_TRUNCATE, slot, fd, begin, 0, (uint64_t)length, 0);
    }
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    if (!real_fallocate) load();
    int fault = classify(fd) == FD_FILE ? injected(slots[fds[fd].slot].path, OP_TRUNCATE) : 0;
    if (fault > 0) { errno = fault; return -1; }
    return real_fallocate(fd, mode, at, n);
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }

static int any_unlink(int dir, const char *path, int flags) {
    if (!real_unlinkat) load();
    char full[PATH_OCTETS];
    int known = head && absolute(dir, path, full);
    uint64_t begin = now_ns();
    int fault = known ? injected(full, OP_UNLINK) : 0;
    if (fault > 0) { errno = fault; return -1; }
    int result = real_unlinkat(dir, path, flags);
    if (result == 0 && known) {
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < head->slots; i++)
            if (!slots[i].gone && !strcmp(slots[i].path, full)) { slots[i].gone = 1; note(EV_UNLINK, (int)i, -1, begin, 0, 0, 0); }
        pthread_mutex_unlock(&lock);
    }
    return result;
}
int unlink(const char *path) { return any_unlink(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return any_unlink(dir, path, flags); }
int close(int fd) { if (!real_close) load(); forget(fd); return real_close(fd); }
int dup2(int from, int to) { if (!real_dup2) load(); forget(to); return real_dup2(from, to); }

ssize_t send(int fd, const void *octets, size_t n, int flags) {
    if (!real_send) load();
    uint64_t begin = now_ns();
    struct iovec part = {(void *)octets, n};
    ssize_t done = real_send(fd, octets, n, flags);
    sent(fd, begin, done, &part, 1);
    return done;
}
ssize_t sendto(int fd, const void *octets, size_t n, int flags, const struct sockaddr *to, socklen_t length) {
    if (!real_sendto) load();
    uint64_t begin = now_ns();
    struct iovec part = {(void *)octets, n};
    ssize_t done = real_sendto(fd, octets, n, flags, to, length);
    sent(fd, begin, done, &part, 1);
    return done;
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (!real_sendmsg) load();
    uint64_t begin = now_ns();
    ssize_t done = real_sendmsg(fd, message, flags);
    sent(fd, begin, done, message->msg_iov, message->msg_iovlen);
    return done;
}
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    if (!real_sendmmsg) load();
    uint64_t begin = now_ns();
    int done = real_sendmmsg(fd, messages, count, flags);
    for (int i = 0; i < done; i++) sent(fd, begin, (ssize_t)messages[i].msg_len, messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen);
    return done;
}
