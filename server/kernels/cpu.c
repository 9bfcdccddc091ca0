/* What the processor has, by CPUID: /proc/cpuinfo tells of another processor under emulation and in some sandboxes.
   Compiled without the instructions that it asks for, so that it runs where they are missing. */
#include <cpuid.h>

#include "decoder.h"

enum { AVX_STATE = 0x06, AVX512_STATE = 0xe6 };

/* Which registers the operating system saves: a processor's instructions are of no use without. */
static uint32_t saved_state(void) {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

uint32_t halimede_lacks(void) {
  uint32_t a, b, c, d, basic = 0, extended = 0, more = 0, state = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) basic = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) extended = b, more = c;
  if (basic & bit_OSXSAVE) state = saved_state();
  const int avx = (state & AVX_STATE) == AVX_STATE, avx512 = (state & AVX512_STATE) == AVX512_STATE;
  const int has[] = {
      avx && (extended & bit_AVX2),        avx && (basic & bit_FMA),
      avx && (basic & bit_F16C),           avx512 && (extended & bit_AVX512F),
      avx512 && (extended & bit_AVX512BW), avx512 && (extended & bit_AVX512DQ),
      avx512 && (extended & bit_AVX512VL), avx512 && (more & bit_AVX512VNNI),
  };
  uint32_t lacks = 0;
  for (unsigned i = 0; i < sizeof has / sizeof *has; i++) lacks |= (uint32_t)!has[i] << i;
  return lacks;
}
