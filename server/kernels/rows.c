#include "rows.h"

#include <immintrin.h>
#include <math.h>

#include "product.h"
#include "vectors.h"

static const float LEVELS = 127;

static float sum_of_squares(const float *row, int32_t size) {
  __m512 sums = _mm512_setzero_ps();
  for (int32_t i = 0; i < size; i += 16) {
    const __m512 values = _mm512_maskz_loadu_ps(lanes(size - i), row + i);
    sums = _mm512_fmadd_ps(values, values, sums);
  }
  return _mm512_reduce_add_ps(sums);
}

void norm_row(const float *from, const float *weight, int32_t size, float epsilon, float *to) {
  const __m512 by = _mm512_set1_ps(1.0f / sqrtf(sum_of_squares(from, size) / (float)size + epsilon));
  for (int32_t i = 0; i < size; i += 16) {
    const __mmask16 mask = lanes(size - i);
    const __m512 weights = _mm512_maskz_loadu_ps(mask, weight + i);
    const __m512 values = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + i), by);
    _mm512_mask_storeu_ps(to + i, mask, _mm512_mul_ps(values, weights));
  }
}

float round_row(const float *row, int32_t size, float crest, uint8_t *levels) {
  const __m512 levels_of_one = _mm512_set1_ps(LEVELS / crest);
  const __m512i zero = _mm512_set1_epi32(ZERO_LEVEL), none = _mm512_setzero_si512();
  for (int32_t i = 0; i < size; i += 16) {
    const __mmask16 mask = lanes(size - i);
    const __m512i found = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, row + i), levels_of_one));
    const __m512i above = _mm512_max_epi32(_mm512_add_epi32(found, zero), none);
    _mm512_mask_cvtusepi32_storeu_epi8(levels + i, mask, above);
  }
  return crest / LEVELS;
}

float round_row_by_largest(const float *row, int32_t size, uint8_t *levels) {
  __m512 largest = _mm512_setzero_ps();
  for (int32_t i = 0; i < size; i += 16)
    largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes(size - i), row + i)));
  const float crest = _mm512_reduce_max_ps(largest);
  return round_row(row, size, crest > 1e-30f ? crest : 1e-30f, levels);
}
