/* Threads that share loops. The caller is one of them. */
#ifndef HALIMEDE_THREADS_H
#define HALIMEDE_THREADS_H

#include <stdint.h>

typedef struct Threads Threads;

/* One turn of a loop, in the thread of that number. */
typedef void (*Turn)(void *context, int32_t turn, int32_t thread);

/* Null when memory or threads are not to be had. */
Threads *threads_open(int32_t count);
/* Runs turns 0 to `turns` - 1, each once, and returns when all are done. */
void threads_share(Threads *threads, int32_t turns, Turn run, void *context);
/* From here on the threads spin for work; */
void threads_wake(Threads *threads);
/* and from here on they sleep. */
void threads_rest(Threads *threads);
void threads_close(Threads *threads);

#endif
