/* What a decoder holds between its calls and during one. */
#ifndef HALIMEDE_STATE_H
#define HALIMEDE_STATE_H

#include <stdint.h>

#include "attention.h"
#include "decoder.h"
#include "pages.h"
#include "product.h"
#include "threads.h"

typedef struct {
  Packed qkv, output, gate_up, down;
} Weights;

/* Tokens that stand together in one slot, at most TOGETHER. */
typedef struct {
  int32_t first, count;
} Run;

struct Decoder {
  Model model;
  Heads heads;
  uint16_t *cache;
  int32_t slots, threads_count, most_tokens;
  Threads *threads;
  Weights *weights;
  Packed head;
  Pages pages;
  Scratch *scratch;
  float **norms; /* a row for each thread */
  /* Of the step that runs; the arrays have room for most_tokens. */
  int32_t tokens, runs_count, wanted_count, layer;
  const int32_t *ids, *slot, *position;
  Run *runs;
  float *residual, *qkv, *attended, *gated, *logits;
  const int32_t *wanted;
  Rounded rounded, wide;
};

static inline int32_t queries_of(const Model *model) { return model->heads * model->head_dim; }

static inline int32_t qkv_of(const Model *model) { return queries_of(model) + 2 * model->kv_heads * model->head_dim; }

/* Not 0 when there is no memory for so many tokens. */
int32_t make_room(Decoder *decoder, int32_t tokens);

#endif
