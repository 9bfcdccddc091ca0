/* A decoder of the Llama line on a CPU, for int8 engines.

   A call computes any set of tokens, each with the slot and the position that it is put at: rows of a decode, a
   chunk of a prompt, several prompts, or all of them at once. Sums of products are exact in 32 bits, and whatever
   is rounded is rounded by rows, in one order: a token's result does not depend on the other tokens, nor on the
   level that these sources are compiled for (compile.py), to the last bit.

   All memory but what `halimede_open` allocates belongs to the caller, and stays where it is until `halimede_close`. */
#ifndef HALIMEDE_DECODER_H
#define HALIMEDE_DECODER_H

#include <stdint.h>

#define HALIMEDE_API __attribute__((visibility("default")))

/* An int8 weight [columns, rows] with a scale for each of its rows; `bias` may be null. */
typedef struct {
  const int8_t *weight;
  const float *scales;
  const float *bias;
  int32_t rows, columns;
} Product;

/* `qkv` stacks queries, keys and values; the norms of heads may be null. */
typedef struct {
  const float *input_norm, *query_norm, *key_norm, *ffn_norm;
  Product qkv, output, gate, up, down;
} Layer;

/* `embedding` [vocab, hidden]; `cosines`, `sines` [positions, head_dim / 2]; `crest` is where the levels end for
   rows of root mean square 1. */
typedef struct {
  int32_t layers, hidden, heads, kv_heads, head_dim, vocab;
  float epsilon, head_epsilon, scale, crest, embedding_scale;
  const float *embedding, *cosines, *sines, *final_norm;
  const Layer *layer;
  Product head;
} Model;

typedef struct Decoder Decoder;

/* Keys and values are half floats in `cache` [layers, 2, slots, kv_heads, capacity * head_dim]: keys in blocks
   [capacity / 16, head_dim, 16], as sixteen of them are scored at once, values [capacity, head_dim]. `capacity` is a
   multiple of 16. Null when memory or threads are not to be had. */
HALIMEDE_API Decoder *halimede_open(const Model *model, uint16_t *cache, int32_t slots, int32_t capacity, int32_t threads);

/* Puts `ids[i]` at `positions[i]` of `slots[i]`, and writes the logits [wanted, vocab] of the tokens `rows`, which
   ascend. Tokens of one slot stand together, at positions that follow each other. Logits are NaN where a number on the
   way to them was not finite. Not 0 when memory is not to be had. */
HALIMEDE_API int32_t halimede_run(Decoder *decoder, int32_t tokens, const int32_t *ids, const int32_t *slots,
                     const int32_t *positions, int32_t wanted, const int32_t *rows, float *logits);

HALIMEDE_API void halimede_close(Decoder *decoder);

/* Bytes of each thread's own memory at such a capacity. */
HALIMEDE_API int64_t halimede_scratch(const Model *model, int32_t capacity);

/* Bits for what the processor has and its operating system saves, and for what this library needs of it, in the order
   AVX2, FMA, F16C, AVX-512 F, BW, DQ, VL, VNNI, and AVX-VNNI. Where something is missing nothing but these two may be
   called. */
HALIMEDE_API uint32_t halimede_has(void);
HALIMEDE_API uint32_t halimede_needs(void);

#endif
