/* Sixteen floats in portable C: what the other levels have to give, to the last bit, and what any other processor runs.
   What a function means is said in vectors_avx512.h. */

typedef struct {
  float at[16];
} Floats;
typedef struct {
  int32_t at[16];
} Ints;

enum { ACROSS = 1 };

/* A vector whose lane i is the expression. */
#define EACH(Type, expression)                                  \
  do {                                                          \
    Type each;                                                  \
    for (int32_t i = 0; i < 16; i++) each.at[i] = (expression); \
    return each;                                                \
  } while (0)

static inline Floats all16(float value) { EACH(Floats, value); }
static inline Floats load16(const float *from) { EACH(Floats, from[i]); }
static inline void store16(float *to, Floats values) { memcpy(to, values.at, sizeof values.at); }
static inline Floats load_some(const float *from, int32_t count) { EACH(Floats, i < count ? from[i] : 0); }
static inline void store_some(float *to, int32_t count, Floats values) {
  for (int32_t i = 0; i < 16 && i < count; i++) to[i] = values.at[i];
}
static inline Floats first_of(Floats values, int32_t count, Floats rest) {
  EACH(Floats, i < count ? values.at[i] : rest.at[i]);
}

static inline Floats add16(Floats a, Floats b) { EACH(Floats, a.at[i] + b.at[i]); }
static inline Floats sub16(Floats a, Floats b) { EACH(Floats, a.at[i] - b.at[i]); }
static inline Floats mul16(Floats a, Floats b) { EACH(Floats, a.at[i] * b.at[i]); }
static inline Floats div16(Floats a, Floats b) { EACH(Floats, a.at[i] / b.at[i]); }
static inline Floats plus_product16(Floats c, Floats a, Floats b) { EACH(Floats, fmaf(a.at[i], b.at[i], c.at[i])); }
static inline Floats less_product16(Floats c, Floats a, Floats b) { EACH(Floats, fmaf(-a.at[i], b.at[i], c.at[i])); }
static inline Floats product_less16(Floats a, Floats b, Floats c) { EACH(Floats, fmaf(a.at[i], b.at[i], -c.at[i])); }
static inline Floats max16(Floats a, Floats b) { EACH(Floats, a.at[i] > b.at[i] ? a.at[i] : b.at[i]); }
static inline Floats min16(Floats a, Floats b) { EACH(Floats, a.at[i] < b.at[i] ? a.at[i] : b.at[i]); }
static inline Floats round16(Floats a) { EACH(Floats, nearbyintf(a.at[i])); }
static inline float by_octaves(float value, float octaves) {
  return isnan(octaves) ? octaves : ldexpf(value, (int)octaves);
}
static inline Floats by_octaves16(Floats values, Floats octaves) {
  EACH(Floats, by_octaves(values.at[i], octaves.at[i]));
}
static inline Floats zero_below16(Floats x, Floats least, Floats values) {
  EACH(Floats, x.at[i] < least.at[i] ? 0 : values.at[i]);
}

static inline float sum16(Floats a) {
  for (int32_t apart = 8; apart; apart /= 2)
    for (int32_t i = 0; i < apart; i++) a.at[i] += a.at[i + apart];
  return a.at[0];
}
static inline float largest16(Floats a) {
  for (int32_t apart = 8; apart; apart /= 2)
    for (int32_t i = 0; i < apart; i++) a.at[i] = a.at[i] > a.at[i + apart] ? a.at[i] : a.at[i + apart];
  return a.at[0];
}

static inline Ints none16(void) { EACH(Ints, 0); }
static inline Ints load_ints(const int32_t *from) { EACH(Ints, from[i]); }
static inline void store_ints(int32_t *to, Ints values) { memcpy(to, values.at, sizeof values.at); }
static inline Floats floats_of(Ints values) { EACH(Floats, (float)values.at[i]); }
static inline Ints larger_magnitude(Ints a, Floats b) {
  int32_t bits[16];
  memcpy(bits, b.at, sizeof bits);
  EACH(Ints, a.at[i] > (bits[i] & 0x7fffffff) ? a.at[i] : bits[i] & 0x7fffffff);
}

/* Below 2^-14 a half is a multiple of 2^-24. An exponent of 31 stands for infinity and NaN. */
static inline float float_of(uint16_t half) {
  const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  const uint32_t bits = (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
  float normal;
  memcpy(&normal, &bits, sizeof normal);
  const float value = exponent ? normal : (float)fraction * 0x1p-24f;
  return half >> 15 ? -value : value;
}
static inline uint16_t half_of(float value) {
  const uint16_t sign = signbit(value) ? 0x8000 : 0;
  const float size = fabsf(value);
  if (isnan(value)) return sign | 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00; /* half a step beyond the largest one */
  int exponent;
  frexpf(size, &exponent);
  exponent = size < 0x1p-14f ? -14 : exponent - 1;
  /* A fraction that rounds up to 2048 carries into the exponent by the same addition. */
  const int32_t steps = (int32_t)nearbyintf(ldexpf(size, 10 - exponent));
  return (uint16_t)(sign + ((exponent + 14) << 10) + steps);
}
static inline Floats load_halves(const uint16_t *from) { EACH(Floats, float_of(from[i])); }
static inline void store_halves(uint16_t *to, Floats values) {
  for (int32_t i = 0; i < 16; i++) to[i] = half_of(values.at[i]);
}

static inline void store_shorts(int16_t *to, int32_t count, Floats values) {
  for (int32_t i = 0; i < 16 && i < count; i++) to[i] = (int16_t)nearbyintf(values.at[i]);
}
