/* Sixteen floats at a time. */
#ifndef HALIMEDE_VECTORS_H
#define HALIMEDE_VECTORS_H

#include <immintrin.h>
#include <stdint.h>

static inline __mmask16 lanes(int32_t count) { return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1); }

/* e^x by a polynomial of degree 6 on half an octave to either side: a relative error below 3e-7, and 0 below -87. */
static inline __m512 exp16(__m512 x) {
  const __m512 least = _mm512_set1_ps(-87.33f);
  const __mmask16 tiny = _mm512_cmp_ps_mask(x, least, _CMP_LT_OQ);
  x = _mm512_min_ps(_mm512_max_ps(x, least), _mm512_set1_ps(88.0f));
  const __m512 octaves = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 rest = _mm512_fnmadd_ps(octaves, _mm512_set1_ps(0.693359375f), x);
  rest = _mm512_fnmadd_ps(octaves, _mm512_set1_ps(-2.12194440e-4f), rest);
  __m512 value = _mm512_set1_ps(1.0f / 720);
  const float factors[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (int i = 0; i < 6; i++) value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(factors[i]));
  return _mm512_maskz_mov_ps((__mmask16)~tiny, _mm512_scalef_ps(value, octaves));
}

/* x * sigmoid(x) */
static inline __m512 silu16(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(x, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

#endif
