/* Sums of products of rows in levels by columns in bytes, exact in 32 bits, as the level computes them.

   A level of a row is from -127 to 127. `dot` adds the products of GROUP levels of a row by the weights that sixteen
   columns have for them; a panel of PANEL columns is [inputs / GROUP][PANEL][GROUP] bytes. MOST_ROWS rows by a panel
   stay in registers. ZERO_LEVEL is added to levels where an instruction wants them unsigned. */
#ifndef HALIMEDE_DOT_H
#define HALIMEDE_DOT_H

#include "vectors.h"

#if defined(HALIMEDE_AVX512)

enum { GROUP = 4, PANEL = 32, MOST_ROWS = 12, ZERO_LEVEL = 128 };
typedef uint8_t Level;
typedef __m512i Columns, Levels;

static inline Columns columns_of(const int8_t *weights) { return _mm512_load_si512(weights); }
static inline Levels levels_of(const Level *levels) {
  int32_t four;
  memcpy(&four, levels, sizeof four);
  return _mm512_set1_epi32(four);
}
static inline Ints dot(Ints sums, Levels levels, Columns columns) {
  return _mm512_dpbusd_epi32(sums, levels, columns);
}
/* Levels of values within -127 and 127. */
static inline void store_levels(Level *to, int32_t count, Floats values) { store_bytes(to, count, values, ZERO_LEVEL); }

#elif defined(HALIMEDE_AVXVNNI)

enum { GROUP = 4, PANEL = 16, MOST_ROWS = 6, ZERO_LEVEL = 128 };
typedef uint8_t Level;
typedef Ints Columns;
typedef __m256i Levels;
/* Of an AVX-512 processor without AVX-VNNI: the same instruction in another encoding. */
#ifdef __AVXVNNI__
#define DPBUSD _mm256_dpbusd_avx_epi32
#else
#define DPBUSD _mm256_dpbusd_epi32
#endif

static inline Columns columns_of(const int8_t *weights) {
  return (Columns){_mm256_load_si256((const __m256i *)weights), _mm256_load_si256((const __m256i *)(weights + 32))};
}
static inline Levels levels_of(const Level *levels) {
  int32_t four;
  memcpy(&four, levels, sizeof four);
  return _mm256_set1_epi32(four);
}
static inline Ints dot(Ints sums, Levels levels, Columns columns) {
  return (Ints){DPBUSD(sums.low, levels, columns.low), DPBUSD(sums.high, levels, columns.high)};
}
static inline void store_levels(Level *to, int32_t count, Floats values) { store_bytes(to, count, values, ZERO_LEVEL); }

#elif defined(HALIMEDE_AVX2)

/* Widened to 16 bits: products of 8 bits by 8 bits would saturate in `maddubs`. */
enum { GROUP = 2, PANEL = 16, MOST_ROWS = 6, ZERO_LEVEL = 0 };
typedef int16_t Level;
typedef Ints Columns;
typedef __m256i Levels;

static inline Columns columns_of(const int8_t *weights) {
  return (Columns){_mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)weights)),
                   _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(weights + 16)))};
}
static inline Levels levels_of(const Level *levels) {
  int32_t two;
  memcpy(&two, levels, sizeof two);
  return _mm256_set1_epi32(two);
}
/* Written out: gcc 12 would compute the products of all rows first, spill the sums, and move what it adds. */
static inline __m256i plus_dot(__m256i sums, __m256i levels, __m256i columns) {
  const __m256i products = _mm256_madd_epi16(levels, columns);
  __asm__("vpaddd %1, %0, %0" : "+x"(sums) : "x"(products));
  return sums;
}
static inline Ints dot(Ints sums, Levels levels, Columns columns) {
  return (Ints){plus_dot(sums.low, levels, columns.low), plus_dot(sums.high, levels, columns.high)};
}
static inline void store_levels(Level *to, int32_t count, Floats values) { store_shorts(to, count, values); }

#else

enum { GROUP = 1, PANEL = 16, MOST_ROWS = 4, ZERO_LEVEL = 0 };
typedef int16_t Level, Levels;
typedef struct {
  int16_t at[16];
} Columns;

static inline Columns columns_of(const int8_t *weights) { EACH(Columns, weights[i]); }
static inline Levels levels_of(const Level *level) { return *level; }
/* A product of 8 bits by 8 bits fits 16. */
static inline Ints dot(Ints sums, Levels level, Columns columns) {
  EACH(Ints, sums.at[i] + (int16_t)(level * columns.at[i]));
}
static inline void store_levels(Level *to, int32_t count, Floats values) { store_shorts(to, count, values); }

#endif

#endif
