/* Products of rows of 8 bits by weights of 8 bits, exact in 32 bits. */
#ifndef HALIMEDE_PRODUCT_H
#define HALIMEDE_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#include "decoder.h"
#include "dot.h"
#include "pages.h"

/* Columns of a product that a turn computes: two vectors of 16. */
enum { TILE = 32, VECTOR = 16 };

/* Rows in levels, [count, stride], each with what a level is worth. */
typedef struct {
  Level *levels;
  float *steps;
  int32_t stride;
} Rounded;

/* A weight as the product reads it: panels of columns (dot.h), and for each of its outputs what its sum begins with,
   what a unit of it is worth, and a bias. */
typedef struct {
  int8_t *panels;
  int32_t *begins;
  float *scales, *biases;
  int32_t outputs, inputs;
} Packed;

/* Where `other` is not null its columns and those of `product` alternate by 16: gate and up in one tile. `pages` has
   room for `packed_size` bytes. */
size_t packed_size(const Product *product, const Product *other);
void packed_open(Packed *packed, Pages *pages, const Product *product, const Product *other);
int32_t packed_tiles(const Packed *packed);

/* Writes the tile's columns of rows first to last - 1: out [rows, stride], added to what is there if `adds`. */
void product_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                  int32_t stride, int32_t adds);
/* The same of a packed gate and up: silu(gate) * up, 16 columns a tile. */
void gated_tile(const Packed *packed, const Rounded *rows, int32_t tile, int32_t first, int32_t last, float *out,
                int32_t stride);

#endif
