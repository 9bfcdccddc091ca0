/* A query's scores are computed first, then its softmax, then the sum of values, each in the order of positions: what
   a token gives is the same however many others are computed with it. */
#include "attention.h"

#include "vectors.h"

static int32_t group_of(const Heads *heads) { return heads->heads / heads->kv_heads; }

static int32_t score_stride(const Heads *heads) { return (heads->capacity + VALUES - 1) / VALUES * VALUES; }

int64_t scores_size(const Heads *heads) { return (int64_t)TOGETHER * group_of(heads) * score_stride(heads); }

int64_t block_size(const Heads *heads) { return (int64_t)VALUES * heads->head_dim; }

void rotate_head(float *head, const float *cosines, const float *sines, int32_t size) {
  const int32_t half = size / 2;
  for (int32_t i = 0; i < half; i += 16) {
    const int32_t left = half - i;
    const Floats x = load_some(head + i, left), y = load_some(head + half + i, left);
    const Floats cosine = load_some(cosines + i, left), sine = load_some(sines + i, left);
    store_some(head + i, left, product_less16(x, cosine, mul16(y, sine)));
    store_some(head + half + i, left, plus_product16(mul16(y, cosine), x, sine));
  }
}

void store_value(const float *from, int32_t size, uint16_t *values, int32_t position) {
  uint16_t *to = values + (int64_t)position * size;
  for (int32_t i = 0; i < size; i += 16) store_halves(to + i, load16(from + i));
}

void store_key(const float *from, int32_t size, uint16_t *keys, int32_t position) {
  uint16_t *to = keys + (int64_t)(position / KEYS) * KEYS * size + position % KEYS;
  for (int32_t i = 0; i < size; i += 16) {
    uint16_t halves[16];
    store_halves(halves, load16(from + i));
    for (int32_t j = 0; j < 16; j++) to[(i + j) * KEYS] = halves[j];
  }
}

static void expand(const uint16_t *from, int32_t size, float *to) {
  for (int32_t i = 0; i < size; i += 16) store16(to + i, load_halves(from + i));
}

/* A block in halves for one token alone, in floats where several read it: the same values. */
typedef struct {
  const uint16_t *halves;
  const float *floats;
} Block;

static inline Floats at(const Block *block, int32_t place) {
  return block->floats ? load16(block->floats + place) : load_halves(block->halves + place);
}

/* The scores of a block of keys [size][KEYS] for so many query heads of a token, next to each other. */
__attribute__((always_inline)) static inline void scores_of(const int32_t count, const Block *block, int32_t size,
                                                            const float *queries, float *scores, int32_t stride) {
  Floats sums[4];
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) sums[i] = all16(0);
  for (int32_t d = 0; d < size; d++) {
    const Floats keys = at(block, d * KEYS);
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++) sums[i] = plus_product16(sums[i], all16(queries[i * size + d]), keys);
  }
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) store16(scores + (int64_t)i * stride, sums[i]);
}

static void score_heads(int32_t heads, const Block *block, int32_t size, const float *queries, float *scores,
                        int32_t stride) {
  for (int32_t head = 0, count; head < heads; head += count) {
    count = heads - head < 4 ? heads - head : 4;
    const float *query = queries + head * size;
    float *to = scores + (int64_t)head * stride;
    switch (count) {
      case 1: scores_of(1, block, size, query, to, stride); break;
      case 2: scores_of(2, block, size, query, to, stride); break;
      case 3: scores_of(3, block, size, query, to, stride); break;
      default: scores_of(4, block, size, query, to, stride);
    }
  }
}

/* Scores to weights that sum to 1; places behind the last score become 0. */
static void softmax(float *scores, int32_t count, float scale) {
  Floats largest = all16(-INFINITY), sums = all16(0);
  for (int32_t i = 0; i < count; i += 16)
    largest = max16(largest, first_of(load16(scores + i), count - i, largest));
  const Floats most = all16(largest16(largest)), factor = all16(scale);
  for (int32_t i = 0; i < count; i += 16) {
    const Floats below = mul16(sub16(load16(scores + i), most), factor);
    const Floats weights = first_of(exp16(below), count - i, all16(0));
    sums = add16(sums, weights);
    store16(scores + i, weights);
  }
  const Floats share = all16(1.0f / sum16(sums));
  for (int32_t i = 0; i < count; i += 16) store16(scores + i, mul16(load16(scores + i), share));
}

/* Adds weighted values, `positions` of a block [VALUES][size], to so many query heads: ACROSS vectors at a time. */
__attribute__((always_inline)) static inline void sum_values(const int32_t heads, const float *weights, int32_t stride,
                                                             int32_t positions, const Block *values, int32_t size,
                                                             float *out) {
  for (int32_t d = 0; d < size; d += ACROSS * 16) {
    /* Where a head ends with one vector the second one is the first again, and is not kept. */
    const int32_t step = size - d > 16 ? 16 : 0;
    Floats sums[4][ACROSS];
#pragma GCC unroll 4
    for (int32_t i = 0; i < heads; i++)
#pragma GCC unroll 2
      for (int32_t v = 0; v < ACROSS; v++) sums[i][v] = load16(out + i * size + d + v * step);
    for (int32_t p = 0; p < positions; p++) {
      Floats found[ACROSS];
#pragma GCC unroll 2
      for (int32_t v = 0; v < ACROSS; v++) found[v] = at(values, p * size + d + v * step);
#pragma GCC unroll 4
      for (int32_t i = 0; i < heads; i++) {
        const Floats weight = all16(weights[(int64_t)i * stride + p]);
#pragma GCC unroll 2
        for (int32_t v = 0; v < ACROSS; v++) sums[i][v] = plus_product16(sums[i][v], weight, found[v]);
      }
    }
#pragma GCC unroll 4
    for (int32_t i = 0; i < heads; i++)
#pragma GCC unroll 2
      for (int32_t v = 0; v < ACROSS; v++) store16(out + i * size + d + v * step, sums[i][v]);
  }
}

static void add_values(int32_t heads, const float *weights, int32_t stride, int32_t positions, const Block *values,
                       int32_t size, float *out) {
  for (int32_t head = 0, count; head < heads; head += count) {
    count = heads - head < 4 ? heads - head : 4;
    const float *weight = weights + (int64_t)head * stride;
    float *to = out + head * size;
    switch (count) {
      case 1: sum_values(1, weight, stride, positions, values, size, to); break;
      case 2: sum_values(2, weight, stride, positions, values, size, to); break;
      case 3: sum_values(3, weight, stride, positions, values, size, to); break;
      default: sum_values(4, weight, stride, positions, values, size, to);
    }
  }
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* `size` places from `from` on; in floats only where it pays. */
static Block block_of(const uint16_t *from, int32_t size, int32_t readers, float *floats) {
  if (readers == 1) return (Block){from, NULL};
  expand(from, size, floats);
  return (Block){from, floats};
}

void attend(const Heads *heads, const uint16_t *keys, const uint16_t *values, int32_t position, int32_t count,
            const float *queries, int32_t query_stride, float *out, int32_t out_stride, const Scratch *scratch) {
  const int32_t size = heads->head_dim, group = group_of(heads), stride = score_stride(heads);
  const int32_t end = position + count;
  for (int32_t key = 0; key < end; key += KEYS) {
    const Block block = block_of(keys + (int64_t)key * size, KEYS * size, count, scratch->block);
    for (int32_t token = key > position ? key - position : 0; token < count; token++)
      score_heads(group, &block, size, queries + (int64_t)token * query_stride,
                  scratch->scores + (int64_t)token * group * stride + key, stride);
  }
  for (int32_t token = 0; token < count; token++)
    for (int32_t head = 0; head < group; head++) {
      softmax(scratch->scores + ((int64_t)token * group + head) * stride, position + token + 1, heads->scale);
      for (int32_t d = 0; d < size; d++) out[(int64_t)token * out_stride + head * size + d] = 0;
    }
  for (int32_t first = 0; first < end; first += VALUES) {
    const int32_t known = least(VALUES, end - first);
    const Block block = block_of(values + (int64_t)first * size, known * size, count, scratch->block);
    for (int32_t token = first > position ? first - position : 0; token < count; token++)
      add_values(group, scratch->scores + (int64_t)token * group * stride + first, stride,
                 least(VALUES, position + token + 1 - first), &block, size, out + (int64_t)token * out_stride);
  }
}
