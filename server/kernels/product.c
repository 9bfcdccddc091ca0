#include "product.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

enum { MOST_ROWS = 12, GROUP = 4 };

/* Sixteen columns of a tile, of one weight. */
static void pack_vector(Packed *packed, const Product *source, int32_t row, int32_t column) {
  int8_t *tile = packed->tiles + (size_t)(column / TILE) * TILE * packed->inputs + column % TILE * GROUP;
  const int32_t count = source->rows - row < VECTOR ? source->rows - row : VECTOR;
  for (int32_t input = 0; input < source->columns; input++) {
    const int8_t *levels = source->weight + (size_t)input * source->rows + row;
    int8_t *place = tile + (size_t)(input / GROUP) * TILE * GROUP + input % GROUP;
    for (int32_t i = 0; i < count; i++) {
      place[i * GROUP] = levels[i];
      packed->begins[column + i] -= ZERO_LEVEL * levels[i];
    }
  }
  for (int32_t i = 0; i < count; i++) {
    packed->scales[column + i] = source->scales[row + i];
    packed->biases[column + i] = source->bias ? source->bias[row + i] : 0;
  }
}

static int32_t inputs_of(const Product *product) { return (product->columns + GROUP - 1) / GROUP * GROUP; }

static int32_t outputs_of(const Product *product, const Product *other) {
  return other ? (product->rows + VECTOR - 1) / VECTOR * TILE : product->rows;
}

static int32_t tiles_of(int32_t outputs) { return (outputs + TILE - 1) / TILE; }

int32_t packed_tiles(const Packed *packed) { return tiles_of(packed->outputs); }

size_t packed_size(const Product *product, const Product *other) {
  const size_t columns = (size_t)tiles_of(outputs_of(product, other)) * TILE;
  return pages_for(columns, inputs_of(product)) + 3 * pages_for(columns, sizeof(float));
}

void packed_open(Packed *packed, Pages *pages, const Product *product, const Product *other) {
  const int32_t each = other ? TILE : VECTOR;
  packed->inputs = inputs_of(product), packed->outputs = outputs_of(product, other);
  const size_t columns = (size_t)packed_tiles(packed) * TILE;
  packed->tiles = pages_take(pages, columns, packed->inputs);
  packed->begins = pages_take(pages, columns, sizeof *packed->begins);
  packed->scales = pages_take(pages, columns, sizeof *packed->scales);
  packed->biases = pages_take(pages, columns, sizeof *packed->biases);
  for (int32_t row = 0, column = 0; row < product->rows; row += VECTOR, column += each) {
    pack_vector(packed, product, row, column);
    if (other) pack_vector(packed, other, row, column + VECTOR);
  }
}

typedef struct {
  __m512i low[MOST_ROWS], high[MOST_ROWS];
} Sums;

/* `count` is known where this is inlined, so that the sums stay in registers. */
__attribute__((always_inline)) static inline void sums_of(const int32_t count, const int8_t *tile,
                                                          const int32_t *begins, const uint8_t *rows, int32_t stride,
                                                          int32_t inputs, Sums *sums) {
  __m512i low[MOST_ROWS], high[MOST_ROWS];
  const __m512i first = _mm512_loadu_si512(begins), second = _mm512_loadu_si512(begins + VECTOR);
#pragma GCC unroll 12
  for (int32_t i = 0; i < count; i++) low[i] = first, high[i] = second;
  for (int32_t input = 0; input < inputs; input += GROUP, tile += TILE * GROUP) {
    const __m512i left = _mm512_load_si512(tile), right = _mm512_load_si512(tile + VECTOR * GROUP);
#pragma GCC unroll 12
    for (int32_t i = 0; i < count; i++) {
      int32_t four;
      memcpy(&four, rows + (size_t)i * stride + input, sizeof four);
      const __m512i levels = _mm512_set1_epi32(four);
      low[i] = _mm512_dpbusd_epi32(low[i], levels, left);
      high[i] = _mm512_dpbusd_epi32(high[i], levels, right);
    }
  }
#pragma GCC unroll 12
  for (int32_t i = 0; i < count; i++) sums->low[i] = low[i], sums->high[i] = high[i];
}

static void any_sums(int32_t count, const int8_t *tile, const int32_t *begins, const uint8_t *rows, int32_t stride,
                     int32_t inputs, Sums *sums) {
  switch (count) {
#define CASE(n) \
  case n: return sums_of(n, tile, begins, rows, stride, inputs, sums);
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
  }
}

/* Rows of a block, so that blocks are of nearly the same size. */
static int32_t block_of(int32_t left) {
  const int32_t blocks = (left + MOST_ROWS - 1) / MOST_ROWS;
  return (left + blocks - 1) / blocks;
}

static __m512 valued(const Packed *packed, __m512i sums, int32_t column, float step) {
  const __m512 worth = _mm512_mul_ps(_mm512_loadu_ps(packed->scales + column), _mm512_set1_ps(step));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), worth, _mm512_loadu_ps(packed->biases + column));
}

static void put(float *out, __mmask16 mask, __m512 values, int32_t adds) {
  if (adds) values = _mm512_add_ps(values, _mm512_maskz_loadu_ps(mask, out));
  _mm512_mask_storeu_ps(out, mask, values);
}

void product_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                  int32_t stride, int32_t adds) {
  const int8_t *weights = packed->tiles + (size_t)tile * TILE * packed->inputs;
  const int32_t column = tile * TILE;
  const __mmask16 low = lanes(packed->outputs - column);
  const __mmask16 high = packed->outputs - column > VECTOR ? lanes(packed->outputs - column - VECTOR) : 0;
  Sums sums;
  for (int32_t row = first, count; row < last; row += count) {
    count = block_of(last - row);
    any_sums(count, weights, packed->begins + column, rows->levels + (size_t)row * rows->stride, rows->stride,
             packed->inputs, &sums);
    for (int32_t i = 0; i < count; i++) {
      float *target = out + (size_t)(row + i) * stride + column;
      put(target, low, valued(packed, sums.low[i], column, rows->steps[row + i]), adds);
      put(target + VECTOR, high, valued(packed, sums.high[i], column + VECTOR, rows->steps[row + i]), adds);
    }
  }
}

void gated_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                int32_t stride) {
  const int8_t *weights = packed->tiles + (size_t)tile * TILE * packed->inputs;
  const int32_t column = tile * TILE;
  Sums sums;
  for (int32_t row = first, count; row < last; row += count) {
    count = block_of(last - row);
    any_sums(count, weights, packed->begins + column, rows->levels + (size_t)row * rows->stride, rows->stride,
             packed->inputs, &sums);
    for (int32_t i = 0; i < count; i++) {
      const __m512 gate = valued(packed, sums.low[i], column, rows->steps[row + i]);
      const __m512 up = valued(packed, sums.high[i], column + VECTOR, rows->steps[row + i]);
      _mm512_storeu_ps(out + (size_t)(row + i) * stride + tile * VECTOR, _mm512_mul_ps(silu16(gate), up));
    }
  }
}
