/* Zeroed memory in large pages where the kernel has them: weights are read from end to end in each step, and small
   pages would miss the TLB every 4 KiB. */
#ifndef HALIMEDE_PAGES_H
#define HALIMEDE_PAGES_H

#include <stddef.h>

/* Null when there is no memory. */
void *pages_open(size_t bytes);
void pages_close(void *pages, size_t bytes);

#endif
