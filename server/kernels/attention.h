/* Causal attention over a cache of half floats, in groups of query heads that share their keys and values. */
#ifndef HALIMEDE_ATTENTION_H
#define HALIMEDE_ATTENTION_H

#include <stdint.h>

/* Tokens of a slot that are computed together, and positions of a block of keys or values. */
enum { TOGETHER = 16, KEYS = 16, VALUES = 32 };

typedef struct {
  int32_t heads, kv_heads, head_dim, capacity;
  float scale;
} Heads;

/* Memory of one thread: scores of all query heads of a group and TOGETHER tokens, and a block in floats. */
typedef struct {
  float *scores;
  float *block;
} Scratch;

int64_t scores_size(const Heads *heads);
int64_t block_size(const Heads *heads);

/* Turns a head of `size` by the angles of its position. */
void rotate_head(float *head, const float *cosines, const float *sines, int32_t size);
/* Puts a key or a value at a position, rounded to half floats. */
void store_key(const float *from, int32_t size, uint16_t *keys, int32_t position);
void store_value(const float *from, int32_t size, uint16_t *values, int32_t position);

/* `count` tokens at positions from `position` on, of one slot, whose keys [capacity / KEYS, head_dim, KEYS] and values
   [capacity, head_dim] are those of one kv head and hold these tokens too. `queries` and `out` point to the first query
   head of the group and are [count, stride]. */
void attend(const Heads *heads, const uint16_t *keys, const uint16_t *values, int32_t position, int32_t count,
            const float *queries, int32_t query_stride, float *out, int32_t out_stride, const Scratch *scratch);

#endif
