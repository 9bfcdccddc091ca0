/* A step: the layers as loops over tiles of columns, rows, and heads of runs of tokens.

   A row with a number that is not finite becomes NaN, and so does everything computed from it: if a NaN or an
   infinity is in a token or in its past, its logits are NaN. */
#include <math.h>
#include <string.h>

#include "rows.h"
#include "state.h"

static const float LARGEST_HALF = 65504;

static const Layer *layer_of(const Decoder *decoder) { return decoder->model.layer + decoder->layer; }

static float *residual_of(const Decoder *decoder, int32_t row) {
  return decoder->residual + (size_t)row * decoder->model.hidden;
}

/* Keys (part 0) or values (part 1) of a slot's kv head in this layer. */
static uint16_t *cached(const Decoder *decoder, int32_t part, int32_t slot, int32_t head) {
  const Heads *heads = &decoder->heads;
  const size_t row = ((size_t)decoder->layer * 2 + part) * decoder->slots + slot;
  return decoder->cache + (row * heads->kv_heads + head) * heads->capacity * heads->head_dim;
}

/* --- One turn of each loop. --- */

static void embed(void *context, int32_t row, int32_t thread) {
  const Decoder *decoder = context;
  const int32_t size = decoder->model.hidden;
  const float *from = decoder->model.embedding + (size_t)decoder->ids[row] * size;
  float *to = residual_of(decoder, row);
  for (int32_t i = 0; i < size; i++) to[i] = from[i] * decoder->model.embedding_scale;
  (void)thread;
}

static void norm_and_round(Decoder *decoder, const float *from, const float *weight, int32_t row, int32_t thread) {
  const Model *model = &decoder->model;
  Rounded *rounded = &decoder->rounded;
  float *norm = decoder->norms[thread];
  const float squares = norm_row(from, weight, model->hidden, model->epsilon, norm);
  const float step = round_row(norm, model->hidden, model->crest, rounded->levels + (size_t)row * rounded->stride);
  rounded->steps[row] = isfinite(squares) ? step : NAN;
}

static void input_norm(void *context, int32_t row, int32_t thread) {
  Decoder *decoder = context;
  norm_and_round(decoder, residual_of(decoder, row), layer_of(decoder)->input_norm, row, thread);
}

static void ffn_norm(void *context, int32_t row, int32_t thread) {
  Decoder *decoder = context;
  norm_and_round(decoder, residual_of(decoder, row), layer_of(decoder)->ffn_norm, row, thread);
}

static void final_norm(void *context, int32_t row, int32_t thread) {
  Decoder *decoder = context;
  norm_and_round(decoder, residual_of(decoder, row), decoder->model.final_norm, row, thread);
}

static void qkv_tile(void *context, int32_t tile, int32_t thread) {
  const Decoder *decoder = context;
  const Packed *packed = &decoder->weights[decoder->layer].qkv;
  product_tile(packed, &decoder->rounded, tile, 0, decoder->tokens, decoder->qkv, qkv_of(&decoder->model), 0);
  (void)thread;
}

static void place_head(const Decoder *decoder, float *head, const float *norm, int32_t position) {
  const Model *model = &decoder->model;
  const int32_t size = model->head_dim, half = size / 2;
  if (norm) norm_row(head, norm, size, model->head_epsilon, head);
  rotate_head(head, model->cosines + (size_t)position * half, model->sines + (size_t)position * half, size);
}

/* Queries and keys of a token are turned to its position; keys and values go into the cache. A key beyond half floats
   would be an infinity there, whose score may be that of no attention: it becomes a NaN, which nothing hides. */
static void place(void *context, int32_t row, int32_t thread) {
  const Decoder *decoder = context;
  const Model *model = &decoder->model;
  const int32_t size = model->head_dim, position = decoder->position[row], slot = decoder->slot[row];
  float *head = decoder->qkv + (size_t)row * qkv_of(model);
  for (int32_t i = 0; i < model->heads; i++, head += size)
    place_head(decoder, head, layer_of(decoder)->query_norm, position);
  for (int32_t i = 0; i < model->kv_heads; i++, head += size) {
    place_head(decoder, head, layer_of(decoder)->key_norm, position);
    if (!(largest_magnitude(head, size) <= LARGEST_HALF)) head[0] = NAN;
    store_key(head, size, cached(decoder, 0, slot, i), position);
  }
  for (int32_t i = 0; i < model->kv_heads; i++, head += size)
    store_value(head, size, cached(decoder, 1, slot, i), position);
  (void)thread;
}

/* The longest runs are the last of a prompt: they come first, so that no thread is left with one at the end. */
static void attend_run(void *context, int32_t turn, int32_t thread) {
  const Decoder *decoder = context;
  const Model *model = &decoder->model;
  const int32_t kv_head = turn % model->kv_heads, group = model->heads / model->kv_heads * model->head_dim;
  const Run run = decoder->runs[decoder->runs_count - 1 - turn / model->kv_heads];
  const int32_t slot = decoder->slot[run.first], stride = qkv_of(model);
  const float *queries = decoder->qkv + (size_t)run.first * stride + kv_head * group;
  float *out = decoder->attended + (size_t)run.first * queries_of(model) + kv_head * group;
  attend(&decoder->heads, cached(decoder, 0, slot, kv_head), cached(decoder, 1, slot, kv_head),
         decoder->position[run.first], run.count, queries, stride, out, queries_of(model), decoder->scratch + thread);
}

static void round_attended(void *context, int32_t row, int32_t thread) {
  const Decoder *decoder = context;
  const Rounded *wide = &decoder->wide;
  const int32_t size = queries_of(&decoder->model);
  wide->steps[row] = round_row_by_largest(decoder->attended + (size_t)row * size, size,
                                          wide->levels + (size_t)row * wide->stride);
  (void)thread;
}

static void output_tile(void *context, int32_t tile, int32_t thread) {
  const Decoder *decoder = context;
  const Packed *packed = &decoder->weights[decoder->layer].output;
  product_tile(packed, &decoder->wide, tile, 0, decoder->tokens, decoder->residual, decoder->model.hidden, 1);
  (void)thread;
}

static void gate_up_tile(void *context, int32_t tile, int32_t thread) {
  const Decoder *decoder = context;
  const Packed *packed = &decoder->weights[decoder->layer].gate_up;
  gated_tile(packed, &decoder->rounded, tile, 0, decoder->tokens, decoder->gated, packed->outputs / 2);
  (void)thread;
}

static void round_gated(void *context, int32_t row, int32_t thread) {
  const Decoder *decoder = context;
  const Rounded *wide = &decoder->wide;
  const int32_t stride = decoder->weights[decoder->layer].gate_up.outputs / 2;
  wide->steps[row] = round_row_by_largest(decoder->gated + (size_t)row * stride, layer_of(decoder)->down.columns,
                                          wide->levels + (size_t)row * wide->stride);
  (void)thread;
}

static void down_tile(void *context, int32_t tile, int32_t thread) {
  const Decoder *decoder = context;
  const Packed *packed = &decoder->weights[decoder->layer].down;
  product_tile(packed, &decoder->wide, tile, 0, decoder->tokens, decoder->residual, decoder->model.hidden, 1);
  (void)thread;
}

static void head_tile(void *context, int32_t tile, int32_t thread) {
  const Decoder *decoder = context;
  product_tile(&decoder->head, &decoder->rounded, tile, 0, decoder->tokens, decoder->logits, decoder->model.vocab, 0);
  (void)thread;
}

/* --- A step. --- */

static void share(Decoder *decoder, int32_t turns, Turn run) { threads_share(decoder->threads, turns, run, decoder); }

/* Of the last layer only what becomes logits is computed, once its keys and values are in the cache. */
static void keep_wanted(Decoder *decoder) {
  const size_t hidden = decoder->model.hidden, queries = queries_of(&decoder->model);
  for (int32_t i = 0; i < decoder->wanted_count; i++) {
    const size_t row = decoder->wanted[i];
    memmove(decoder->residual + i * hidden, decoder->residual + row * hidden, hidden * sizeof(float));
    memmove(decoder->attended + i * queries, decoder->attended + row * queries, queries * sizeof(float));
  }
  decoder->tokens = decoder->wanted_count;
}

static void run_layer(Decoder *decoder) {
  const Weights *weights = decoder->weights + decoder->layer;
  share(decoder, decoder->tokens, input_norm);
  share(decoder, packed_tiles(&weights->qkv), qkv_tile);
  share(decoder, decoder->tokens, place);
  share(decoder, decoder->runs_count * decoder->model.kv_heads, attend_run);
  if (decoder->layer == decoder->model.layers - 1) keep_wanted(decoder);
  share(decoder, decoder->tokens, round_attended);
  share(decoder, packed_tiles(&weights->output), output_tile);
  share(decoder, decoder->tokens, ffn_norm);
  share(decoder, packed_tiles(&weights->gate_up), gate_up_tile);
  share(decoder, decoder->tokens, round_gated);
  share(decoder, packed_tiles(&weights->down), down_tile);
}

static void find_runs(Decoder *decoder) {
  decoder->runs_count = 0;
  for (int32_t i = 0; i < decoder->tokens; i++) {
    Run *last = decoder->runs_count ? decoder->runs + decoder->runs_count - 1 : NULL;
    const int continues = last && last->count < TOGETHER && decoder->slot[i] == decoder->slot[i - 1] &&
                          decoder->position[i] == decoder->position[i - 1] + 1;
    if (continues)
      last->count++;
    else
      decoder->runs[decoder->runs_count++] = (Run){i, 1};
  }
}

int32_t halimede_run(Decoder *decoder, int32_t tokens, const int32_t *ids, const int32_t *slots,
                     const int32_t *positions, int32_t wanted, const int32_t *rows, float *logits) {
  if (tokens > decoder->most_tokens && make_room(decoder, tokens)) return 1;
  decoder->tokens = tokens, decoder->ids = ids, decoder->slot = slots, decoder->position = positions;
  decoder->wanted = rows, decoder->wanted_count = wanted, decoder->logits = logits;
  find_runs(decoder);
  threads_wake(decoder->threads);
  share(decoder, tokens, embed);
  for (decoder->layer = 0; decoder->layer < decoder->model.layers; decoder->layer++) run_layer(decoder);
  share(decoder, wanted, final_norm);
  share(decoder, wanted ? packed_tiles(&decoder->head) : 0, head_tile);
  threads_rest(decoder->threads);
  return 0;
}
