#include "rows.h"

#include "vectors.h"

static const float LEVELS = 127;

static float sum_of_squares(const float *row, int32_t size) {
  Floats sums = all16(0);
  for (int32_t i = 0; i < size; i += 16) {
    const Floats values = load_some(row + i, size - i);
    sums = plus_product16(sums, values, values);
  }
  return sum16(sums);
}

float norm_row(const float *from, const float *weight, int32_t size, float epsilon, float *to) {
  const float squares = sum_of_squares(from, size);
  const float root = sqrtf(squares / (float)size + epsilon);
  const Floats by = all16(isfinite(squares) ? 1.0f / root : NAN);
  for (int32_t i = 0; i < size; i += 16) {
    const int32_t left = size - i;
    const Floats values = mul16(load_some(from + i, left), by);
    store_some(to + i, left, mul16(values, load_some(weight + i, left)));
  }
  return squares;
}

float round_row(const float *row, int32_t size, float crest, Level *levels) {
  const Floats levels_of_one = all16(LEVELS / crest), least = all16(-LEVELS), most = all16(LEVELS);
  for (int32_t i = 0; i < size; i += 16) {
    const Floats values = mul16(load_some(row + i, size - i), levels_of_one);
    store_levels(levels + i, size - i, min16(max16(values, least), most));
  }
  return crest / LEVELS;
}

float largest_magnitude(const float *row, int32_t size) {
  Ints largest = none16();
  for (int32_t i = 0; i < size; i += 16) largest = larger_magnitude(largest, load_some(row + i, size - i));
  int32_t lanes[16], most = 0;
  store_ints(lanes, largest);
  for (int32_t i = 0; i < 16; i++) most = lanes[i] > most ? lanes[i] : most;
  float found;
  memcpy(&found, &most, sizeof found);
  return found;
}

float round_row_by_largest(const float *row, int32_t size, Level *levels) {
  const float crest = largest_magnitude(row, size);
  const float step = round_row(row, size, crest > 1e-30f ? crest : 1e-30f, levels);
  return isfinite(crest) ? step : NAN;
}
