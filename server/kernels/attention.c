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

void store_halves(const float *from, int32_t size, uint16_t *to) {
  for (int32_t i = 0; i < size; i += 16) {
    const __m256i halves = _mm512_cvtps_ph(_mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256((__m256i *)(to + i), halves);
  }
}

static __m512 load_halves(const uint16_t *from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

/* Sixteen vectors of sixteen, turned: value j of vector i goes to place i of vector j, at to + 16 j. */
static void turn(const uint16_t *from, int32_t stride, float *to) {
  __m512 rows[16], pairs[16];
  for (int i = 0; i < 16; i++) rows[i] = load_halves(from + (int64_t)i * stride);
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      const __m512d a = _mm512_castps_pd(pairs[i + j]), b = _mm512_castps_pd(pairs[i + 2 + j]);
      rows[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      rows[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      pairs[i + j] = _mm512_shuffle_f32x4(rows[i + j], rows[i + 4 + j], 0x88);
      pairs[i + 4 + j] = _mm512_shuffle_f32x4(rows[i + j], rows[i + 4 + j], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    _mm512_storeu_ps(to + 16 * j, _mm512_shuffle_f32x4(pairs[j], pairs[j + 8], 0x88));
    _mm512_storeu_ps(to + 16 * (j + 8), _mm512_shuffle_f32x4(pairs[j], pairs[j + 8], 0xdd));
  }
}

/* The scores of a block of keys [size][KEYS] for so many query heads of a token, next to each other. */
__attribute__((always_inline)) static inline void scores_of(const int32_t count, const float *block, int32_t size,
                                                            const float *queries, float *scores, int32_t stride) {
  __m512 sums[4];
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) sums[i] = _mm512_setzero_ps();
  for (int32_t d = 0; d < size; d++) {
    const __m512 keys = _mm512_loadu_ps(block + d * KEYS);
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++)
      sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(queries[i * size + d]), keys, sums[i]);
  }
#pragma GCC unroll 4
  for (int32_t i = 0; i < count; i++) _mm512_storeu_ps(scores + (int64_t)i * stride, sums[i]);
}

static void score_heads(int32_t heads, const float *block, int32_t size, const float *queries, float *scores,
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

/* Adds weighted values, [count][size] in floats, to 64 places of a head or fewer. */
static void add_values(const float *weights, int32_t count, const float *values, int32_t size, float *out) {
  for (int32_t d = 0; d < size; d += 64) {
    const int32_t vectors = size - d < 64 ? (size - d) / 16 : 4;
    __m512 sums[4];
    for (int i = 0; i < 4; i++) sums[i] = i < vectors ? _mm512_loadu_ps(out + d + 16 * i) : _mm512_setzero_ps();
    for (int32_t p = 0; p < count; p++) {
      const __m512 weight = _mm512_set1_ps(weights[p]);
      const float *value = values + (int64_t)p * size + d;
      for (int i = 0; i < 4; i++)
        if (i < vectors) sums[i] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(value + 16 * i), sums[i]);
    }
    for (int i = 0; i < vectors; i++) _mm512_storeu_ps(out + d + 16 * i, sums[i]);
  }
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

void attend(const Heads *heads, const uint16_t *keys, const uint16_t *values, int32_t position, int32_t count,
            const float *queries, int32_t query_stride, float *out, int32_t out_stride, const Scratch *scratch) {
  const int32_t size = heads->head_dim, group = group_of(heads), stride = score_stride(heads);
  const int32_t end = position + count;
  for (int32_t key = 0; key < end; key += KEYS) {
    for (int32_t d = 0; d < size; d += 16) turn(keys + (int64_t)key * size + d, size, scratch->block + d * KEYS);
    for (int32_t token = key > position ? key - position : 0; token < count; token++)
      score_heads(group, scratch->block, size, queries + (int64_t)token * query_stride,
                  scratch->scores + (int64_t)token * group * stride + key, stride);
  }
  for (int32_t token = 0; token < count; token++)
    for (int32_t head = 0; head < group; head++) {
      softmax(scratch->scores + ((int64_t)token * group + head) * stride, position + token + 1, heads->scale);
      for (int32_t d = 0; d < size; d++) out[(int64_t)token * out_stride + head * size + d] = 0;
    }
  for (int32_t first = 0; first < end; first += VALUES) {
    const int32_t known = least(VALUES, end - first);
    for (int32_t i = 0; i < known * size; i += 16)
      _mm512_storeu_ps(scratch->block + i, load_halves(values + (int64_t)first * size + i));
    for (int32_t token = first > position ? first - position : 0; token < count; token++)
      for (int32_t head = 0; head < group; head++)
        add_values(scratch->scores + ((int64_t)token * group + head) * stride + first,
                   least(VALUES, position + token + 1 - first), scratch->block, size,
                   out + (int64_t)token * out_stride + head * size);
  }
}
