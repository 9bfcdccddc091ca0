/* Sixteen floats as one register of AVX-512. */
#include <immintrin.h>

typedef __m512 Floats;
typedef __m512i Ints;

/* Vectors of values that are summed at once: of 32 registers there are enough for two. */
enum { ACROSS = 2 };

static inline __mmask16 lanes(int32_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

static inline Floats all16(float value) { return _mm512_set1_ps(value); }
static inline Floats load16(const float *from) { return _mm512_loadu_ps(from); }
static inline void store16(float *to, Floats values) { _mm512_storeu_ps(to, values); }
/* The first `count` floats, at most 16, and zeros. */
static inline Floats load_some(const float *from, int32_t count) { return _mm512_maskz_loadu_ps(lanes(count), from); }
static inline void store_some(float *to, int32_t count, Floats values) {
  _mm512_mask_storeu_ps(to, lanes(count), values);
}
/* The first `count` lanes, and `rest` in those behind. */
static inline Floats first_of(Floats values, int32_t count, Floats rest) {
  return _mm512_mask_blend_ps(lanes(count), rest, values);
}

static inline Floats add16(Floats a, Floats b) { return _mm512_add_ps(a, b); }
static inline Floats sub16(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
static inline Floats mul16(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline Floats div16(Floats a, Floats b) { return _mm512_div_ps(a, b); }
/* c + a * b, c - a * b and a * b - c, rounded once. */
static inline Floats plus_product16(Floats c, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, c); }
static inline Floats less_product16(Floats c, Floats a, Floats b) { return _mm512_fnmadd_ps(a, b, c); }
static inline Floats product_less16(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
/* a where it is beyond b, else b. */
static inline Floats max16(Floats a, Floats b) { return _mm512_max_ps(a, b); }
static inline Floats min16(Floats a, Floats b) { return _mm512_min_ps(a, b); }
/* To the nearest whole number, halves to the even one. */
static inline Floats round16(Floats a) { return _mm512_roundscale_ps(a, 0); }
/* values * 2^octaves, for whole octaves and results that are normal numbers. */
static inline Floats by_octaves16(Floats values, Floats octaves) { return _mm512_scalef_ps(values, octaves); }
/* `values`, and 0 where x < least. */
static inline Floats zero_below16(Floats x, Floats least, Floats values) {
  return _mm512_maskz_mov_ps((__mmask16)~_mm512_cmp_ps_mask(x, least, _CMP_LT_OQ), values);
}

/* Lanes that are 8 apart, then 4, 2 and 1. */
static inline float sum16(Floats a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float largest16(Floats a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline Ints none16(void) { return _mm512_setzero_si512(); }
static inline Ints load_ints(const int32_t *from) { return _mm512_loadu_si512(from); }
static inline void store_ints(int32_t *to, Ints values) { _mm512_storeu_si512(to, values); }
static inline Floats floats_of(Ints values) { return _mm512_cvtepi32_ps(values); }
/* The larger of `a` and the bits of magnitudes: as whole numbers a NaN is above infinity, and that above all else. */
static inline Ints larger_magnitude(Ints a, Floats b) {
  return _mm512_max_epi32(a, _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(0x7fffffff)));
}

/* Half floats, rounded to the nearest, halves to the even one. */
static inline Floats load_halves(const uint16_t *from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
static inline void store_halves(uint16_t *to, Floats values) {
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

/* Whole numbers of 8 bits plus `zero`, of values within -127 and 127, rounded as by `round16`. */
static inline void store_bytes(uint8_t *to, int32_t count, Floats values, int32_t zero) {
  const Ints found = _mm512_add_epi32(_mm512_cvtps_epi32(values), _mm512_set1_epi32(zero));
  _mm512_mask_cvtepi32_storeu_epi8(to, lanes(count), found);
}
