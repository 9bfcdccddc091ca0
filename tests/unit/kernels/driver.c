/* Runs a decoder of decoder.txt and model.onnx.data (golden.py) from C alone, so that sanitizers see all that it does:
   driver FOLDER THREADS writes the logits of its calls to stdout. driver overflow, driver race and driver shift do what
   a sanitizer has to catch, to show that it is at work. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"

static char *data;

static void stop(const char *what) {
  fprintf(stderr, "driver: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void *memory(size_t count, size_t size) {
  void *found = calloc(count ? count : 1, size);
  if (!found) stop("no memory");
  return found;
}

static long number(FILE *from) {
  long found;
  if (fscanf(from, "%ld", &found) != 1) stop("no number in decoder.txt");
  return found;
}

static float real(FILE *from) {
  float found;
  if (fscanf(from, "%f", &found) != 1) stop("no float in decoder.txt");
  return found;
}

static const void *place(FILE *from) {
  const long offset = number(from);
  return offset < 0 ? NULL : data + offset;
}

static int32_t *numbers(FILE *from, int32_t count) {
  int32_t *found = memory(count, sizeof *found);
  for (int32_t i = 0; i < count; i++) found[i] = (int32_t)number(from);
  return found;
}

static FILE *opened(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *found = fopen(path, "rb");
  if (!found) stop(path);
  return found;
}

static void read_data(const char *folder) {
  FILE *file = opened(folder, "model.onnx.data");
  fseek(file, 0, SEEK_END);
  const size_t size = (size_t)ftell(file);
  rewind(file);
  data = aligned_alloc(64, (size + 63) / 64 * 64);
  if (!data || fread(data, 1, size, file) != size) stop("model.onnx.data");
  fclose(file);
}

/* Widens a product by the outputs of another one. */
static void add_part(Product *product, int32_t columns, int32_t rows, const int8_t *weight, const float *scales,
                     const float *bias) {
  const int32_t before = product->rows, all = before + rows;
  int8_t *weights = memory((size_t)columns * all, 1);
  float *floats = memory((size_t)all, sizeof(float)), *biases = memory((size_t)all, sizeof(float));
  for (int32_t column = 0; column < columns; column++) {
    if (before) memcpy(weights + (size_t)column * all, product->weight + (size_t)column * before, before);
    memcpy(weights + (size_t)column * all + before, weight + (size_t)column * rows, rows);
  }
  if (before) memcpy(floats, product->scales, before * sizeof(float));
  if (before && product->bias) memcpy(biases, product->bias, before * sizeof(float));
  memcpy(floats + before, scales, rows * sizeof(float));
  if (bias) memcpy(biases + before, bias, rows * sizeof(float));
  free((void *)product->weight), free((void *)product->scales), free((void *)product->bias);
  *product = (Product){weights, floats, biases, all, columns};
}

static Product product(FILE *from) {
  Product found = {0};
  for (long parts = number(from); parts > 0; parts--) {
    const int32_t columns = (int32_t)number(from), rows = (int32_t)number(from);
    const int8_t *weight = place(from);
    const float *scales = place(from);
    add_part(&found, columns, rows, weight, scales, place(from));
  }
  return found;
}

static Model model(FILE *from) {
  Model found = {0};
  int32_t *sizes[] = {&found.layers, &found.hidden, &found.heads, &found.kv_heads, &found.head_dim, &found.vocab};
  float *reals[] = {&found.epsilon, &found.head_epsilon, &found.scale, &found.crest, &found.embedding_scale};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) *sizes[i] = (int32_t)number(from);
  for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) *reals[i] = real(from);
  found.embedding = place(from), found.cosines = place(from), found.sines = place(from);
  found.final_norm = place(from);
  found.head = product(from);
  Layer *layers = memory(found.layers, sizeof *layers);
  for (Layer *layer = layers; layer < layers + found.layers; layer++) {
    layer->input_norm = place(from), layer->query_norm = place(from), layer->key_norm = place(from);
    layer->ffn_norm = place(from);
    layer->qkv = product(from), layer->output = product(from);
    layer->gate = product(from), layer->up = product(from), layer->down = product(from);
  }
  found.layer = layers;
  return found;
}

static void drop(Product product) { free((void *)product.weight), free((void *)product.scales), free((void *)product.bias); }

static void drop_model(Model *model) {
  for (int32_t i = 0; i < model->layers; i++) {
    const Layer *layer = model->layer + i;
    drop(layer->qkv), drop(layer->output), drop(layer->gate), drop(layer->up), drop(layer->down);
  }
  drop(model->head), free((void *)model->layer);
}

static void run_call(FILE *from, Decoder *decoder, int32_t vocab) {
  const int32_t tokens = (int32_t)number(from), wanted = (int32_t)number(from);
  int32_t *ids = numbers(from, tokens), *slots = numbers(from, tokens), *positions = numbers(from, tokens);
  int32_t *rows = numbers(from, wanted);
  float *logits = memory((size_t)wanted * vocab, sizeof *logits);
  if (halimede_run(decoder, tokens, ids, slots, positions, wanted, rows, logits)) stop("halimede_run");
  fwrite(logits, sizeof *logits, (size_t)wanted * vocab, stdout);
  free(ids), free(slots), free(positions), free(rows), free(logits);
}

static int run(const char *folder, int32_t threads) {
  if (halimede_needs() & ~halimede_has()) return fprintf(stderr, "driver: not for this processor\n"), 3;
  read_data(folder);
  FILE *from = opened(folder, "decoder.txt");
  const int32_t slots = (int32_t)number(from), capacity = (int32_t)number(from);
  Model found = model(from);
  const size_t halves = (size_t)found.layers * 2 * slots * found.kv_heads * capacity * found.head_dim;
  uint16_t *cache = memory(halves, sizeof *cache);
  Decoder *decoder = halimede_open(&found, cache, slots, capacity, threads);
  if (!decoder) stop("halimede_open");
  for (long calls = number(from); calls > 0; calls--) run_call(from, decoder, found.vocab);
  halimede_close(decoder);
  drop_model(&found);
  free(cache), free(data), fclose(from);
  return 0;
}

static int shared;

static void *add(void *turns) {
  for (int i = 0; i < *(int *)turns; i++) shared++;
  return NULL;
}

static int race(int turns) {
  pthread_t other;
  if (pthread_create(&other, NULL, add, &turns)) stop("pthread_create");
  add(&turns);
  pthread_join(other, NULL);
  return 0;
}

int main(int count, char **arguments) {
  const char *first = count > 1 ? arguments[1] : "";
  volatile int many = 40;
  if (!strcmp(first, "overflow")) return ((volatile char *)memory(many, 1))[many];
  if (!strcmp(first, "shift")) return 1 << many;
  if (!strcmp(first, "race")) return race(1000 * many);
  if (count == 3) return run(first, (int32_t)atoi(arguments[2]));
  fprintf(stderr, "driver FOLDER THREADS | overflow | shift | race\n");
  return 2;
}
