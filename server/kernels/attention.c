/* A query's scores are computed first, then its softmax, then the sum of values, each in the order of positions: what
   a token gives is the same however many others are computed with it. */
#include "attention.h"

#include <immintrin.h>
#include <math.h>

#include "vectors.h"

static int32_t group_of(const Heads *heads) { return heads->heads / heads->kv_heads; }

static int32_t score_stride(const Heads *heads) { return (heads->capacity + VALUES - 1) / VALUES * VALUES; }

int64_t scores_size(const Heads *heads) { return (int64_t)TOGETHER * group_of(heads) * score_stride(heads); }

int64_t block_size(const Heads *heads) { return (int64_t)VALUES * heads->head_dim; }

void rotate_head(float *head, const float *cosines, const float *sines, int32_t size) {
  const int32_t half = size / 2;
  for (int32_t i = 0; i < half; i += 16) {
    const __mmask16 mask = lanes(half - i);
    const __m512 x = _mm512_maskz_loadu_ps(mask, head + i), y = _mm512_maskz_loadu_ps(mask, head + half + i);
    const __m512 cosine = _mm512_maskz_loadu_ps(mask, cosines + i), sine = _mm512_maskz_loadu_ps(mask, sines + i);
    _mm512_mask_storeu_ps(head + i, mask, _mm512_fmsub_ps(x, cosine, _mm512_mul_ps(y, sine)));
    _mm512_mask_storeu_ps(head + half + i, mask, _mm512_fmadd_ps(x, sine, _mm512_mul_ps(y, cosine)));
  }
}

static __m512 load_halves(const uint16_t *from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

static __m256i to_halves(const float *from) {
  return _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
}

void store_value(const float *from, int32_t size, uint16_t *values, int32_t position) {
  uint16_t *to = values + (int64_t)position * size;
  for (int32_t i = 0; i < size; i += 16) _mm256_storeu_si256((__m256i *)(to + i), to_halves(from + i));
}

void store_key(const float *from, int32_t size, uint16_t *keys, int32_t position) {
  uint16_t *to = keys + (int64_t)(position / KEYS) * KEYS * size + position % KEYS;
  for (int32_t i = 0; i < size; i += 16) {
    uint16_t halves[16];
    _mm256_storeu_si256((__m256i *)halves, to_halves(from + i));
    for (int32_t j = 0; j < 16; j++) to[(i + j) * KEYS] = halves[j];
  }
}

static void expand(const uint16_t *from, int32_t size, float *to) {
  for (int32_t i = 0; i < size; i += 16) _mm512_storeu_ps(to + i, load_halves(from + i));
}

/* A block in halves for one token alone, in floats where several read it: the same values. */
typedef struct {
  const uint16_t *halves;
  const float *floats;
} Block;

static __m512 at(const Block *block, int32_t place) {
  return block->floats ? _mm512_loadu_ps(block->floats + place) : load_halves(block->halves + place);
}

/* The scores of a block of keys [size][KEYS] for so many query heads of a token, next to each other. */
__attribute__((always_inline)) static inline void scores_of(const int32_t count, const Block *block, int32_t size,
                                                            const float *queries, float *scores, int32_t stride) {
  __m512 sums[4];
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) sums[i] = _mm512_setzero_ps();
  for (int32_t d = 0; d < size; d++) {
    const __m512 keys = at(block, d * KEYS);
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++)
      sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(queries[i * size + d]), keys, sums[i]);
  }
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) _mm512_storeu_ps(scores + (int64_t)i * stride, sums[i]);
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
  __m512 largest = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
  for (int32_t i = 0; i < count; i += 16)
    largest = _mm512_mask_max_ps(largest, lanes(count - i), largest, _mm512_loadu_ps(scores + i));
  const __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(largest)), factor = _mm512_set1_ps(scale);
  for (int32_t i = 0; i < count; i += 16) {
    const __m512 below = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + i), most), factor);
    const __m512 weights = _mm512_maskz_mov_ps(lanes(count - i), exp16(below));
    sums = _mm512_add_ps(sums, weights);
    _mm512_storeu_ps(scores + i, weights);
  }
  const __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sums));
  for (int32_t i = 0; i < count; i += 16)
    _mm512_storeu_ps(scores + i, _mm512_mul_ps(_mm512_loadu_ps(scores + i), share));
}

/* Adds weighted values, `positions` of a block [VALUES][size], to so many query heads: 32 places of each at a time. */
__attribute__((always_inline)) static inline void sum_values(const int32_t heads, const float *weights, int32_t stride,
                                                             int32_t positions, const Block *values, int32_t size,
                                                             float *out) {
  for (int32_t d = 0; d < size; d += 32) {
    const int32_t wide = size - d > 16;
    __m512 low[4], high[4];
#pragma GCC unroll 4
    for (int32_t i = 0; i < heads; i++) {
      low[i] = _mm512_loadu_ps(out + i * size + d);
      high[i] = wide ? _mm512_loadu_ps(out + i * size + d + 16) : _mm512_setzero_ps();
    }
    for (int32_t p = 0; p < positions; p++) {
      const __m512 left = at(values, p * size + d), right = wide ? at(values, p * size + d + 16) : left;
#pragma GCC unroll 4
      for (int32_t i = 0; i < heads; i++) {
        const __m512 weight = _mm512_set1_ps(weights[(int64_t)i * stride + p]);
        low[i] = _mm512_fmadd_ps(weight, left, low[i]);
        high[i] = _mm512_fmadd_ps(weight, right, high[i]);
      }
    }
#pragma GCC unroll 4
    for (int32_t i = 0; i < heads; i++) {
      _mm512_storeu_ps(out + i * size + d, low[i]);
      if (wide) _mm512_storeu_ps(out + i * size + d + 16, high[i]);
    }
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
