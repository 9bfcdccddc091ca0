/* What is done to rows one by one: norms, and rounding to levels. */
#ifndef HALIMEDE_ROWS_H
#define HALIMEDE_ROWS_H

#include <stdint.h>

#include "dot.h"

/* The norm of a row by its root mean square; `to` may be `from`. Returns the sum of the row's squares. Where that is
   not finite the norm is NaN. */
float norm_row(const float *from, const float *weight, int32_t size, float epsilon, float *to);
/* Levels that end at `crest`; returns what a level is worth. */
float round_row(const float *row, int32_t size, float crest, Level *levels);
/* Levels that end at the row's largest magnitude; NaN where a number of the row is not finite. */
float round_row_by_largest(const float *row, int32_t size, Level *levels);
/* NaN where there is one in the row. */
float largest_magnitude(const float *row, int32_t size);

#endif
