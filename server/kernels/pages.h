/* One stretch of zeroed memory in large pages, where the kernel has them, that is given out from front to back. All
   weights are read in each step: in small pages every one of them would cost a miss of the TLB, and end what the
   processor fetches ahead. */
#ifndef HALIMEDE_PAGES_H
#define HALIMEDE_PAGES_H

#include <stddef.h>

typedef struct {
  char *start;
  size_t size, used;
} Pages;

/* Bytes that `count` things of `size` take of it. */
size_t pages_for(size_t count, size_t size);
/* Not 0 when there is no memory. */
int pages_open(Pages *pages, size_t size);
/* What is given out must have been counted by `pages_for`. */
void *pages_take(Pages *pages, size_t count, size_t size);
void pages_close(Pages *pages);

#endif
