#define _DEFAULT_SOURCE
#include "pages.h"

#include <sys/mman.h>

enum { LINE = 64, LARGE = 2 << 20 };

size_t pages_for(size_t count, size_t size) { return (count * size + LINE - 1) / LINE * LINE; }

int pages_open(Pages *pages, size_t size) {
  size = (size + LARGE - 1) / LARGE * LARGE;
  void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *pages = (Pages){0};
  if (start == MAP_FAILED) return 1;
  madvise(start, size, MADV_HUGEPAGE);
  *pages = (Pages){start, size, 0};
  return 0;
}

void *pages_take(Pages *pages, size_t count, size_t size) {
  void *found = pages->start + pages->used;
  pages->used += pages_for(count, size);
  return found;
}

void pages_close(Pages *pages) {
  if (pages->start) munmap(pages->start, pages->size);
}
