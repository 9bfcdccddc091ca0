#include "product.h"

/* Sixteen columns of one weight. */
static void pack_vector(Packed *packed, const Product *source, int32_t row, int32_t column) {
  int8_t *panel = packed->panels + (size_t)(column / PANEL) * PANEL * packed->inputs + column % PANEL * GROUP;
  const int32_t count = source->rows - row < VECTOR ? source->rows - row : VECTOR;
  for (int32_t input = 0; input < source->columns; input++) {
    const int8_t *levels = source->weight + (size_t)input * source->rows + row;
    int8_t *place = panel + (size_t)(input / GROUP) * PANEL * GROUP + input % GROUP;
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
  packed->panels = pages_take(pages, columns, packed->inputs);
  packed->begins = pages_take(pages, columns, sizeof *packed->begins);
  packed->scales = pages_take(pages, columns, sizeof *packed->scales);
  packed->biases = pages_take(pages, columns, sizeof *packed->biases);
  for (int32_t row = 0, column = 0; row < product->rows; row += VECTOR, column += each) {
    pack_vector(packed, product, row, column);
    if (other) pack_vector(packed, other, row, column + VECTOR);
  }
}

/* Of rows by the columns of a tile. */
typedef struct {
  Ints of[MOST_ROWS][TILE / VECTOR];
} Sums;

/* `count` is known where this is inlined, so that the sums stay in registers. */
__attribute__((always_inline)) static inline void sums_of(const int32_t count, const int8_t *panel,
                                                          const int32_t *begins, const Level *rows, int32_t stride,
                                                          int32_t inputs, const int32_t vector, Sums *sums) {
  enum { VECTORS = PANEL / VECTOR };
  Ints found[MOST_ROWS][VECTORS];
#pragma GCC unroll 12
  for (int32_t i = 0; i < count; i++)
#pragma GCC unroll 2
    for (int32_t v = 0; v < VECTORS; v++) found[i][v] = load_ints(begins + (vector + v) * VECTOR);
#pragma GCC unroll 2
  for (int32_t input = 0; input < inputs; input += GROUP, panel += PANEL * GROUP) {
    Columns columns[VECTORS];
#pragma GCC unroll 2
    for (int32_t v = 0; v < VECTORS; v++) columns[v] = columns_of(panel + v * VECTOR * GROUP);
#pragma GCC unroll 12
    for (int32_t i = 0; i < count; i++) {
      const Levels levels = levels_of(rows + (size_t)i * stride + input);
#pragma GCC unroll 2
      for (int32_t v = 0; v < VECTORS; v++) found[i][v] = dot(found[i][v], levels, columns[v]);
    }
  }
#pragma GCC unroll 12
  for (int32_t i = 0; i < count; i++)
#pragma GCC unroll 2
    for (int32_t v = 0; v < VECTORS; v++) sums->of[i][vector + v] = found[i][v];
}

static void panel_sums(int32_t count, const int8_t *panel, const int32_t *begins, const Level *rows, int32_t stride,
                       int32_t inputs, int32_t vector, Sums *sums) {
  switch (count) {
#define CASE(n) \
  case n: return sums_of(n <= MOST_ROWS ? n : 1, panel, begins, rows, stride, inputs, vector, sums);
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
  }
}

static void tile_sums(const Packed *packed, const Rounded *rows, int32_t tile, int32_t row, int32_t count, Sums *sums) {
  const Level *levels = rows->levels + (size_t)row * rows->stride;
  for (int32_t column = 0; column < TILE; column += PANEL)
    panel_sums(count, packed->panels + (size_t)(tile * TILE + column) * packed->inputs, packed->begins + tile * TILE,
               levels, rows->stride, packed->inputs, column / VECTOR, sums);
}

/* Rows of a block, so that blocks are of nearly the same size. */
static int32_t block_of(int32_t left) {
  const int32_t blocks = (left + MOST_ROWS - 1) / MOST_ROWS;
  return (left + blocks - 1) / blocks;
}

static Floats valued(const Packed *packed, Ints sums, int32_t column, float step) {
  const Floats worth = mul16(load16(packed->scales + column), all16(step));
  return plus_product16(load16(packed->biases + column), floats_of(sums), worth);
}

static void put(float *out, int32_t count, Floats values, int32_t adds) {
  if (count <= 0) return;
  if (adds) values = add16(values, load_some(out, count));
  store_some(out, count, values);
}

void product_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                  int32_t stride, int32_t adds) {
  Sums sums;
  for (int32_t row = first, count; row < last; row += count) {
    count = block_of(last - row);
    tile_sums(packed, rows, tile, row, count, &sums);
    for (int32_t i = 0; i < count; i++)
      for (int32_t v = 0; v < TILE / VECTOR; v++) {
        const int32_t column = tile * TILE + v * VECTOR;
        const Floats values = valued(packed, sums.of[i][v], column, rows->steps[row + i]);
        put(out + (size_t)(row + i) * stride + column, packed->outputs - column, values, adds);
      }
  }
}

void gated_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                int32_t stride) {
  const int32_t column = tile * TILE;
  Sums sums;
  for (int32_t row = first, count; row < last; row += count) {
    count = block_of(last - row);
    tile_sums(packed, rows, tile, row, count, &sums);
    for (int32_t i = 0; i < count; i++) {
      const Floats gate = valued(packed, sums.of[i][0], column, rows->steps[row + i]);
      const Floats up = valued(packed, sums.of[i][1], column + VECTOR, rows->steps[row + i]);
      store16(out + (size_t)(row + i) * stride + tile * VECTOR, mul16(silu16(gate), up));
    }
  }
}
