/* LD_PRELOAD: notes every write to the files below $RECORD_FOLDER in the order in which they were made, and every fsync.

   A record is one line of text, then the bytes of a write:
   write FILE OFFSET LENGTH | truncate FILE LENGTH | sync FILE | unlink FILE | rename FILE FILE
   What is mapped (SQLite's -shm) is not noted: it does not outlive a power cut. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 4096
static char names[FILES][256];
static int recording = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char *to = getenv("RECORD_TO");
  if (to) recording = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static const char *below(const char *path) {
  const char *folder = getenv("RECORD_FOLDER");
  size_t n = folder ? strlen(folder) : 0;
  return n && path && !strncmp(path, folder, n) && path[n] == '/' ? path + n + 1 : NULL;
}

static const char *name_of(int fd) { return fd >= 0 && fd < FILES && names[fd][0] ? names[fd] : NULL; }

static void note(const char *line, const void *data, size_t n) {
  if (recording < 0) return;
  pthread_mutex_lock(&lock);
  syscall(SYS_write, recording, line, strlen(line));
  while (n) {
    long done = syscall(SYS_write, recording, data, n);
    if (done <= 0) abort();
    data = (const char *)data + done, n -= done;
  }
  pthread_mutex_unlock(&lock);
}

static int opened(int fd, const char *path, int flags) {
  const char *name = below(path);
  if (fd >= 0 && fd < FILES) {
    names[fd][0] = 0;
    if (name && strlen(name) < 255) strcpy(names[fd], name);
    if (name && (flags & O_TRUNC)) {
      char line[320];
      snprintf(line, sizeof line, "truncate %s 0\n", name);
      note(line, NULL, 0);
    }
  }
  return fd;
}

#define OPEN(symbol)                                                                     \
  int symbol(const char *path, int flags, ...) {                                         \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);     \
    return opened(syscall(SYS_openat, AT_FDCWD, path, flags, mode), path, flags);        \
  }
OPEN(open)
OPEN(open64)

static void wrote(int fd, const void *data, ssize_t n, off_t at) {
  const char *name = name_of(fd);
  if (!name || n <= 0) return;
  char line[320];
  snprintf(line, sizeof line, "write %s %lld %lld\n", name, (long long)at, (long long)n);
  note(line, data, n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
  ssize_t done = syscall(SYS_pwrite64, fd, data, n, at);
  wrote(fd, data, done, at);
  return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

ssize_t write(int fd, const void *data, size_t n) {
  off_t at = name_of(fd) ? lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) ? SEEK_END : SEEK_CUR) : 0;
  ssize_t done = syscall(SYS_write, fd, data, n);
  wrote(fd, data, done, at);
  return done;
}

static int cut(int fd, off_t n) {
  int done = syscall(SYS_ftruncate, fd, n);
  if (!done && name_of(fd)) {
    char line[320];
    snprintf(line, sizeof line, "truncate %s %lld\n", name_of(fd), (long long)n);
    note(line, NULL, 0);
  }
  return done;
}
int ftruncate64(int fd, off_t n) { return cut(fd, n); }
int ftruncate(int fd, off_t n) { return cut(fd, n); }

static int synced(int fd, int done) {
  if (!done && name_of(fd)) {
    char line[320];
    snprintf(line, sizeof line, "sync %s\n", name_of(fd));
    note(line, NULL, 0);
  }
  return done;
}
int fsync(int fd) { return synced(fd, syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { return synced(fd, syscall(SYS_fdatasync, fd)); }

int unlink(const char *path) {
  int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  if (!done && below(path)) {
    char line[320];
    snprintf(line, sizeof line, "unlink %s\n", below(path));
    note(line, NULL, 0);
  }
  return done;
}

int rename(const char *from, const char *to) {
  int done = syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
  if (!done && below(from) && below(to)) {
    char line[640];
    snprintf(line, sizeof line, "rename %s %s\n", below(from), below(to));
    note(line, NULL, 0);
  }
  return done;
}

int close(int fd) {
  if (fd >= 0 && fd < FILES) names[fd][0] = 0;
  return syscall(SYS_close, fd);
}
