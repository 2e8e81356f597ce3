/* Preloaded into a program, it shifts the wall clock that the program sees, and leaves the monotonic one. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 512

/* Seconds to add, for each slot; whoever shifts a clock writes into the file. */
static const volatile int64_t *offsets;
static unsigned slot;

__attribute__((constructor)) static void start(void) {
  char host[65] = {0};
  gethostname(host, sizeof host - 1);
  uint32_t sum = 0;
  for (const char *c = host; *c; c++) sum = sum * 31 + (unsigned char)*c;
  slot = sum % SLOTS;
  int file = open("/clock/offsets", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *at = mmap(0, SLOTS * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (at != MAP_FAILED) offsets = at;
}

static int64_t offset(void) { return offsets ? offsets[slot] : 0; }

int clock_gettime(clockid_t id, struct timespec *t) {
  int result = syscall(SYS_clock_gettime, id, t);
  if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += offset();
  return result;
}

int gettimeofday(struct timeval *t, void *zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *t) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
