/* Sixteen floats as two registers of AVX2, with FMA and F16C. What a function means is said in vectors_avx512.h. */
#include <immintrin.h>

typedef struct {
  __m256 low, high;
} Floats;
typedef struct {
  __m256i low, high;
} Ints;

enum { ACROSS = 1 };

static inline Floats all16(float value) { return (Floats){_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
static inline Floats load16(const float *from) { return (Floats){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
static inline void store16(float *to, Floats values) {
  _mm256_storeu_ps(to, values.low);
  _mm256_storeu_ps(to + 8, values.high);
}
/* By way of the stack: stores under a mask are slow on some processors, and only a row's tail comes here. */
static inline Floats load_some(const float *from, int32_t count) {
  if (count >= 16) return load16(from);
  float whole[16] = {0};
  if (count > 0) memcpy(whole, from, (size_t)count * sizeof *from);
  return load16(whole);
}
static inline void store_some(float *to, int32_t count, Floats values) {
  if (count >= 16) return store16(to, values);
  float whole[16];
  store16(whole, values);
  if (count > 0) memcpy(to, whole, (size_t)count * sizeof *to);
}
static inline Floats first_of(Floats values, int32_t count, Floats rest) {
  if (count >= 16) return values;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes));
  const __m256 high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), lanes));
  return (Floats){_mm256_blendv_ps(rest.low, values.low, low), _mm256_blendv_ps(rest.high, values.high, high)};
}

static inline Floats add16(Floats a, Floats b) {
  return (Floats){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
static inline Floats sub16(Floats a, Floats b) {
  return (Floats){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
static inline Floats mul16(Floats a, Floats b) {
  return (Floats){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
static inline Floats div16(Floats a, Floats b) {
  return (Floats){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
static inline Floats plus_product16(Floats c, Floats a, Floats b) {
  return (Floats){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
static inline Floats less_product16(Floats c, Floats a, Floats b) {
  return (Floats){_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
static inline Floats product_less16(Floats a, Floats b, Floats c) {
  return (Floats){_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
static inline Floats max16(Floats a, Floats b) {
  return (Floats){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
static inline Floats min16(Floats a, Floats b) {
  return (Floats){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
static inline Floats round16(Floats a) {
  enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
  return (Floats){_mm256_round_ps(a.low, NEAREST), _mm256_round_ps(a.high, NEAREST)};
}
/* An octave is one in the exponent. */
static inline __m256 by_octaves8(__m256 values, __m256 octaves) {
  const __m256i exponents = _mm256_slli_epi32(_mm256_cvtps_epi32(octaves), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(values), exponents));
}
static inline Floats by_octaves16(Floats values, Floats octaves) {
  return (Floats){by_octaves8(values.low, octaves.low), by_octaves8(values.high, octaves.high)};
}
static inline Floats zero_below16(Floats x, Floats least, Floats values) {
  const __m256 low = _mm256_cmp_ps(x.low, least.low, _CMP_LT_OQ), high = _mm256_cmp_ps(x.high, least.high, _CMP_LT_OQ);
  return (Floats){_mm256_andnot_ps(low, values.low), _mm256_andnot_ps(high, values.high)};
}

static inline float sum16(Floats a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float largest16(Floats a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline Ints none16(void) { return (Ints){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline Ints load_ints(const int32_t *from) {
  return (Ints){_mm256_loadu_si256((const __m256i *)from), _mm256_loadu_si256((const __m256i *)(from + 8))};
}
static inline void store_ints(int32_t *to, Ints values) {
  _mm256_storeu_si256((__m256i *)to, values.low);
  _mm256_storeu_si256((__m256i *)(to + 8), values.high);
}
static inline Floats floats_of(Ints values) {
  return (Floats){_mm256_cvtepi32_ps(values.low), _mm256_cvtepi32_ps(values.high)};
}
static inline Ints larger_magnitude(Ints a, Floats b) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  return (Ints){_mm256_max_epi32(a.low, _mm256_and_si256(_mm256_castps_si256(b.low), magnitude)),
                _mm256_max_epi32(a.high, _mm256_and_si256(_mm256_castps_si256(b.high), magnitude))};
}

static inline Floats load_halves(const uint16_t *from) {
  return (Floats){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)))};
}
static inline void store_halves(uint16_t *to, Floats values) {
  _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(values.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i *)(to + 8), _mm256_cvtps_ph(values.high, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m256i shorts_of(Floats values) {
  const __m256i found = _mm256_packs_epi32(_mm256_cvtps_epi32(values.low), _mm256_cvtps_epi32(values.high));
  return _mm256_permute4x64_epi64(found, 0xd8); /* packs goes by halves of a register */
}
static inline void store_shorts(int16_t *to, int32_t count, Floats values) {
  int16_t whole[16];
  _mm256_storeu_si256((__m256i *)(count >= 16 ? to : whole), shorts_of(values));
  if (count < 16) memcpy(to, whole, (size_t)count * sizeof *to);
}
static inline void store_bytes(uint8_t *to, int32_t count, Floats values, int32_t zero) {
  const __m256i shorts = _mm256_add_epi16(shorts_of(values), _mm256_set1_epi16((int16_t)zero));
  const __m128i found = _mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
  uint8_t whole[16];
  _mm_storeu_si128((__m128i *)(count >= 16 ? to : whole), found);
  if (count < 16) memcpy(to, whole, (size_t)count);
}
