/* A step of a small model has hundreds of loops of some ten microseconds: they are begun and ended by spinning. A
   thread that spins in vain gives its processor away, for where processors are shared the one it waits for may be
   waiting for it. No thread waits for a particular other one: the running threads take its turns. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPINS = 4000 };

/* `turns` of the loop in the upper half and the next turn in the lower: one addition takes a turn, and tells of which
   loop it is. What `run` and `context` are is then certain, as a loop with an open turn does not end. */
typedef struct {
  _Alignas(64) _Atomic uint64_t next;
  _Alignas(64) atomic_int done;
  _Alignas(64) atomic_int awake;
  Turn run;
  void *context;
} Loop;

struct Threads {
  Loop loop;
  pthread_t *handles;
  int32_t count, closing;
  pthread_mutex_t lock;
  pthread_cond_t woken;
};

typedef struct {
  Threads *threads;
  int32_t number;
} Start;

static int open_turns(uint64_t next) { return (uint32_t)next < next >> 32; }

static void take_turns(Loop *loop, int32_t thread) {
  for (;;) {
    const uint64_t next = atomic_fetch_add_explicit(&loop->next, 1, memory_order_acq_rel);
    if (!open_turns(next)) return;
    loop->run(loop->context, (int32_t)(uint32_t)next, thread);
    atomic_fetch_add_explicit(&loop->done, 1, memory_order_release);
  }
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void spin(int32_t *spins) {
  if (++*spins < SPINS)
    relax();
  else
    sched_yield();
}

static int is_awake(Loop *loop) { return atomic_load_explicit(&loop->awake, memory_order_acquire); }

/* While the threads are awake. */
static void serve(Loop *loop, int32_t thread) {
  for (int32_t spins = 0; is_awake(loop);) {
    if (open_turns(atomic_load_explicit(&loop->next, memory_order_acquire))) {
      take_turns(loop, thread);
      spins = 0;
    } else {
      spin(&spins);
    }
  }
}

static int await_step(Threads *threads) {
  pthread_mutex_lock(&threads->lock);
  while (!is_awake(&threads->loop) && !threads->closing) pthread_cond_wait(&threads->woken, &threads->lock);
  const int closing = threads->closing;
  pthread_mutex_unlock(&threads->lock);
  return !closing;
}

static void *work(void *argument) {
  const Start start = *(Start *)argument;
  free(argument);
  while (await_step(start.threads)) serve(&start.threads->loop, start.number);
  return NULL;
}

static int start(Threads *threads) {
  Start *start = malloc(sizeof *start);
  if (!start) return 0;
  *start = (Start){threads, threads->count};
  if (!pthread_create(&threads->handles[threads->count], NULL, work, start)) return ++threads->count;
  free(start);
  return 0;
}

Threads *threads_open(int32_t count) {
  Threads *threads = aligned_alloc(64, (sizeof *threads + 63) / 64 * 64);
  if (!threads) return NULL;
  *threads = (Threads){.count = 1, .handles = calloc(count, sizeof *threads->handles)};
  pthread_mutex_init(&threads->lock, NULL);
  pthread_cond_init(&threads->woken, NULL);
  while (threads->handles && threads->count < count)
    if (!start(threads)) break;
  if (threads->handles && threads->count == count) return threads;
  threads_close(threads);
  return NULL;
}

void threads_share(Threads *threads, int32_t turns, Turn run, void *context) {
  Loop *loop = &threads->loop;
  if (threads->count == 1 || turns <= 1) {
    for (int32_t turn = 0; turn < turns; turn++) run(context, turn, 0);
    return;
  }
  loop->run = run, loop->context = context;
  atomic_store_explicit(&loop->done, 0, memory_order_relaxed);
  atomic_store_explicit(&loop->next, (uint64_t)turns << 32, memory_order_release);
  take_turns(loop, 0);
  for (int32_t spins = 0; atomic_load_explicit(&loop->done, memory_order_acquire) < turns;) spin(&spins);
}

static void set_awake(Threads *threads, int awake) {
  pthread_mutex_lock(&threads->lock);
  atomic_store_explicit(&threads->loop.awake, awake, memory_order_release);
  if (awake) pthread_cond_broadcast(&threads->woken);
  pthread_mutex_unlock(&threads->lock);
}

void threads_wake(Threads *threads) { set_awake(threads, 1); }

void threads_rest(Threads *threads) { set_awake(threads, 0); }

void threads_close(Threads *threads) {
  pthread_mutex_lock(&threads->lock);
  threads->closing = 1;
  pthread_cond_broadcast(&threads->woken);
  pthread_mutex_unlock(&threads->lock);
  for (int32_t number = 1; number < threads->count; number++) pthread_join(threads->handles[number], NULL);
  pthread_cond_destroy(&threads->woken);
  pthread_mutex_destroy(&threads->lock);
  free(threads->handles);
  free(threads);
}
