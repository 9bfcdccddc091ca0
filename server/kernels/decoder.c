/* Memory of a decoder: packed weights, threads, and room for as many tokens as a step has had. */
#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "state.h"

static int32_t padded(int32_t size) { return (size + 63) / 64 * 64; }

static void drop_room(Decoder *decoder) {
  free(decoder->runs), free(decoder->residual), free(decoder->qkv), free(decoder->attended), free(decoder->gated);
  free(decoder->rounded.levels), free(decoder->rounded.steps), free(decoder->wide.levels), free(decoder->wide.steps);
  decoder->runs = NULL;
  decoder->residual = decoder->qkv = decoder->attended = decoder->gated = NULL;
  decoder->rounded = decoder->wide = (Rounded){0};
  decoder->most_tokens = 0;
}

static void *room(size_t count, size_t size) {
  const size_t bytes = (count * size + 63) / 64 * 64;
  void *found = aligned_alloc(64, bytes);
  if (found) memset(found, 0, bytes);
  return found;
}

int32_t make_room(Decoder *decoder, int32_t tokens) {
  const Model *model = &decoder->model;
  const int32_t inner = decoder->weights->gate_up.outputs / 2, queries = queries_of(model);
  drop_room(decoder);
  decoder->rounded.stride = padded(model->hidden);
  decoder->wide.stride = padded(inner > queries ? inner : queries);
  decoder->runs = room(tokens, sizeof *decoder->runs);
  decoder->residual = room((size_t)tokens * model->hidden, sizeof(float));
  decoder->qkv = room((size_t)tokens * qkv_of(model), sizeof(float));
  decoder->attended = room((size_t)tokens * queries, sizeof(float));
  decoder->gated = room((size_t)tokens * inner, sizeof(float));
  decoder->rounded.levels = room((size_t)tokens * decoder->rounded.stride, sizeof(Level));
  decoder->rounded.steps = room(tokens, sizeof(float));
  decoder->wide.levels = room((size_t)tokens * decoder->wide.stride, sizeof(Level));
  decoder->wide.steps = room(tokens, sizeof(float));
  if (!decoder->runs || !decoder->residual || !decoder->qkv || !decoder->attended || !decoder->gated ||
      !decoder->rounded.levels || !decoder->rounded.steps || !decoder->wide.levels || !decoder->wide.steps)
    return drop_room(decoder), 1;
  decoder->most_tokens = tokens;
  return 0;
}

static size_t size_of_weights(const Model *model) {
  size_t size = packed_size(&model->head, NULL);
  for (const Layer *layer = model->layer; layer < model->layer + model->layers; layer++)
    size += packed_size(&layer->qkv, NULL) + packed_size(&layer->output, NULL) +
            packed_size(&layer->gate, &layer->up) + packed_size(&layer->down, NULL);
  return size;
}

static void pack_layer(const Layer *layer, Pages *pages, Weights *weights) {
  packed_open(&weights->qkv, pages, &layer->qkv, NULL);
  packed_open(&weights->output, pages, &layer->output, NULL);
  packed_open(&weights->gate_up, pages, &layer->gate, &layer->up);
  packed_open(&weights->down, pages, &layer->down, NULL);
}

static int32_t pack(Decoder *decoder) {
  const Model *model = &decoder->model;
  decoder->weights = calloc(model->layers, sizeof *decoder->weights);
  if (!decoder->weights || pages_open(&decoder->pages, size_of_weights(model))) return 1;
  for (int32_t i = 0; i < model->layers; i++) pack_layer(model->layer + i, &decoder->pages, decoder->weights + i);
  packed_open(&decoder->head, &decoder->pages, &model->head, NULL);
  return 0;
}

static Heads heads_of(const Model *model, int32_t capacity) {
  return (Heads){model->heads, model->kv_heads, model->head_dim, capacity, model->scale};
}

int64_t halimede_scratch(const Model *model, int32_t capacity) {
  const Heads heads = heads_of(model, capacity);
  return (scores_size(&heads) + block_size(&heads) + padded(model->hidden)) * (int64_t)sizeof(float);
}

static int32_t prepare(Decoder *decoder, int32_t threads) {
  decoder->scratch = calloc(threads, sizeof *decoder->scratch);
  decoder->norms = calloc(threads, sizeof *decoder->norms);
  if (!decoder->scratch || !decoder->norms || pack(decoder)) return 1;
  for (int32_t i = 0; i < threads; i++) {
    decoder->scratch[i].scores = room(scores_size(&decoder->heads), sizeof(float));
    decoder->scratch[i].block = room(block_size(&decoder->heads), sizeof(float));
    decoder->norms[i] = room(padded(decoder->model.hidden), sizeof(float));
    if (!decoder->scratch[i].scores || !decoder->scratch[i].block || !decoder->norms[i]) return 1;
  }
  decoder->threads = threads_open(threads);
  return !decoder->threads;
}

Decoder *halimede_open(const Model *model, uint16_t *cache, int32_t slots, int32_t capacity, int32_t threads) {
  Decoder *decoder = calloc(1, sizeof *decoder);
  if (!decoder) return NULL;
  decoder->model = *model, decoder->cache = cache, decoder->slots = slots, decoder->threads_count = threads;
  decoder->heads = heads_of(model, capacity);
  if (!prepare(decoder, threads)) return decoder;
  halimede_close(decoder);
  return NULL;
}

void halimede_close(Decoder *decoder) {
  if (decoder->threads) threads_close(decoder->threads);
  drop_room(decoder);
  for (int32_t i = 0; i < decoder->threads_count; i++) {
    if (decoder->scratch) free(decoder->scratch[i].scores), free(decoder->scratch[i].block);
    if (decoder->norms) free(decoder->norms[i]);
  }
  pages_close(&decoder->pages);
  free(decoder->weights), free(decoder->scratch), free(decoder->norms);
  free(decoder);
}
