/* What is done to rows one by one: norms, and rounding to levels. */
#ifndef HALIMEDE_ROWS_H
#define HALIMEDE_ROWS_H

#include <stdint.h>

/* The norm of a row by its root mean square; `to` may be `from`. */
void norm_row(const float *from, const float *weight, int32_t size, float epsilon, float *to);
/* Levels that end at `crest`; returns what a level is worth. */
float round_row(const float *row, int32_t size, float crest, uint8_t *levels);
/* Levels that end at the row's largest magnitude. */
float round_row_by_largest(const float *row, int32_t size, uint8_t *levels);

#endif
