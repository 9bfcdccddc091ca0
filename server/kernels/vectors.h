/* Sixteen floats at a time, in the registers of the level that this is compiled for.

   Every level gives the same bits: a lane is computed by itself, with a fused multiplication where one is named here
   and nowhere else; where lanes meet, the order is written out; the least and largest are those of x86, where `a` has
   to be beyond `b` to be chosen, so that a NaN as `b` stays. */
#ifndef HALIMEDE_VECTORS_H
#define HALIMEDE_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(HALIMEDE_AVX512)
#include "vectors_avx512.h"
#elif defined(HALIMEDE_AVX2)
#include "vectors_avx2.h"
#else
#include "vectors_plain.h"
#endif

/* e^x by a polynomial of degree 6 on half an octave to either side: a relative error below 3e-7, and 0 below -87. */
static inline Floats exp16(Floats x) {
  const Floats least = all16(-87.33f), kept = min16(all16(88.0f), max16(least, x));
  const Floats octaves = round16(mul16(kept, all16(1.44269504f)));
  Floats rest = less_product16(kept, octaves, all16(0.693359375f));
  rest = less_product16(rest, octaves, all16(-2.12194440e-4f));
  Floats value = all16(1.0f / 720);
  const float factors[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (int i = 0; i < 6; i++) value = plus_product16(all16(factors[i]), value, rest);
  return zero_below16(x, least, by_octaves16(value, octaves));
}

/* x * sigmoid(x) */
static inline Floats silu16(Floats x) {
  const Floats one = all16(1.0f);
  return div16(x, add16(one, exp16(sub16(all16(0), x))));
}

#endif
