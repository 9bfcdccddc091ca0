/* What the processor has, by CPUID: /proc/cpuinfo may describe another one under emulation and in some sandboxes.
   Compiled without the instructions that it tests for, so that it runs where they are missing. */
#include "decoder.h"

enum { AVX2 = 1, FMA = 2, F16C = 4, AVX512F = 8, AVX512BW = 16, AVX512DQ = 32, AVX512VL = 64, AVX512VNNI = 128, AVXVNNI = 256 };

/* What the rest of this library is compiled for. */
static const uint32_t NEEDED =
#if defined(HALIMEDE_AVX512)
    AVX2 | FMA | F16C | AVX512F | AVX512BW | AVX512DQ | AVX512VL | AVX512VNNI;
#elif defined(HALIMEDE_AVXVNNI) && defined(HALIMEDE_EVEX)
    AVX2 | FMA | F16C | AVX512F | AVX512VL | AVX512VNNI;
#elif defined(HALIMEDE_AVXVNNI)
    AVX2 | FMA | F16C | AVXVNNI;
#elif defined(HALIMEDE_AVX2)
    AVX2 | FMA | F16C;
#else
    0;
#endif

uint32_t halimede_needs(void) { return NEEDED; }

#if defined(__x86_64__)

#include <cpuid.h>

enum { AVX_STATE = 0x06, AVX512_STATE = 0xe6, AVXVNNI_BIT = 1 << 4 };

/* Which registers the operating system saves: without that, a processor's instructions cannot be used. */
static uint32_t saved_state(void) {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static uint32_t avx512_of(uint32_t extended, uint32_t more) {
  return (extended & bit_AVX512F ? AVX512F : 0) | (extended & bit_AVX512BW ? AVX512BW : 0) |
         (extended & bit_AVX512DQ ? AVX512DQ : 0) | (extended & bit_AVX512VL ? AVX512VL : 0) |
         (more & bit_AVX512VNNI ? AVX512VNNI : 0);
}

uint32_t halimede_has(void) {
  uint32_t a, b, c, d, basic = 0, extended = 0, more = 0, newest = 0, has = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) basic = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) extended = b, more = c;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) newest = a;
  const uint32_t state = basic & bit_OSXSAVE ? saved_state() : 0;
  if ((state & AVX_STATE) == AVX_STATE)
    has = (extended & bit_AVX2 ? AVX2 : 0) | (basic & bit_FMA ? FMA : 0) | (basic & bit_F16C ? F16C : 0) |
          (newest & AVXVNNI_BIT ? AVXVNNI : 0);
  return (state & AVX512_STATE) == AVX512_STATE ? has | avx512_of(extended, more) : has;
}

#else

uint32_t halimede_has(void) { return 0; }

#endif
