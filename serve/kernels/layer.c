/* A whole decoder layer of the Llama-like family in one call: what the forward would otherwise call one by one. */
#include "adapters.h"

#include <stddef.h>

void int4_product(const float *, long, long, const uint8_t *, const uint16_t *, const uint16_t *, long, const float *, float *,
                  const Adapters *, long);
void int8_product(const float *, long, long, const int8_t *, const uint16_t *, long, const float *, float *, const Adapters *,
                  long);
void dense_product(const float *, long, long, const void *, int, long, const float *, float *, const Adapters *, long);
void add_rms_norm(float *, const float *, long, long, const float *, float, float *);
void silu_product(const float *, long, long, float *);
void rotate_and_store(float *, long, long, long, long, const float *, const float *, long, const int32_t *, const int64_t *,
                      const float *, const float *, float, void *, void *, int, long, long);
void paged_attention(const float *, long, long, long, long, long, void *, void *, int, long, long, const int32_t *, long,
                     const int32_t *, const int32_t *, long, float, float, float *);

/* A weight in any form: 0 int4, 1 int8, 2 + kind dense. Missing parts are NULL. */
typedef struct {
    const void *weights;
    const uint16_t *scales, *minima;
    const float *bias;
    long rows, columns, form;
} Matrix;

typedef struct {
    const float *attention_norm, *q_norm, *k_norm, *mlp_norm;
    Matrix qkv, output, gate_up, down;
} Layer;

/* What all layers of a step share. The buffers are for one layer at a time, but for hidden and delta, which pass on. */
typedef struct {
    long tokens, heads, kv_heads, head_dim, half, window, cache_kind, cache_stride, block_size, table_width;
    const float *cosines, *sines;
    const int32_t *positions, *sequences, *block_tables;
    const int64_t *slots;
    float *hidden, *delta, *normed, *qkv, *mixed, *gate_up, *gated;
    const Adapters *adapters;
    float eps, scale;
} Step;

static void multiply(const float *x, const Matrix *w, float *y, const Step *s, long site) {
    const long t = s->tokens;
    const Adapters *a = s->adapters;
    if (w->form == 0) int4_product(x, t, w->columns, w->weights, w->scales, w->minima, w->rows, w->bias, y, a, site);
    else if (w->form == 1) int8_product(x, t, w->columns, w->weights, w->scales, w->rows, w->bias, y, a, site);
    else dense_product(x, t, w->columns, w->weights, (int)w->form - 2, w->rows, w->bias, y, a, site);
}

/* Adds the delta of the layer before (unless this is the first) to `hidden`, and leaves this layer's in `delta`. Its four
 * matrices are the adapters' sites from 4 * index on. */
void decoder_layer(const Layer *l, const Step *s, void *keys, void *values, long index) {
    const long t = s->tokens, width = l->qkv.columns, site = 4 * index;
    const int kind = (int)s->cache_kind;
    add_rms_norm(s->hidden, index ? s->delta : NULL, t, width, l->attention_norm, s->eps, s->normed);
    multiply(s->normed, &l->qkv, s->qkv, s, site);
    rotate_and_store(s->qkv, t, s->heads, s->kv_heads, s->head_dim, s->cosines, s->sines, s->half, s->positions, s->slots,
                     l->q_norm, l->k_norm, s->eps, keys, values, kind, s->cache_stride, s->block_size);
    paged_attention(s->qkv, l->qkv.rows, t, s->heads, s->kv_heads, s->head_dim, keys, values, kind, s->cache_stride,
                    s->block_size, s->block_tables, s->table_width, s->sequences, s->positions, s->window, s->scale, 0.0f,
                    s->mixed);
    multiply(s->mixed, &l->output, s->delta, s, site + 1);
    add_rms_norm(s->hidden, s->delta, t, width, l->mlp_norm, s->eps, s->normed);
    multiply(s->normed, &l->gate_up, s->gate_up, s, site + 2);
    silu_product(s->gate_up, t, l->down.columns, s->gated);
    multiply(s->gated, &l->down, s->delta, s, site + 3);
}
