/* What a decoder layer does between its products: norms, activation, rotation, the paged cache, attention. */
#include "common.h"
#include "pool.h"

/* ---- between the products ------------------------------------------------------------------------------------------ */

static inline float sum_of_squares(const float *x, long k) {
    __m256 sum = _mm256_setzero_ps();
    long i = 0;
    for (; i + 8 <= k; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        sum = _mm256_fmadd_ps(v, v, sum);
    }
    float total = sum8(sum);
    for (; i < k; i++) total = fmaf(x[i], x[i], total);
    return total;
}

static inline void normalize(const float *x, const float *weight, float eps, long k, float *y) {
    float factor = 1.0f / sqrtf(sum_of_squares(x, k) / (float)k + eps);
    for (long i = 0; i < k; i++) y[i] = weight[i] * (x[i] * factor);
}

typedef struct {
    float *hidden;
    const float *delta, *weight;
    long k;
    float eps, *y;
} Norm;

static void norm_rows(const void *context, long begin, long end) {
    const Norm *n = context;
    for (long r = begin; r < end; r++) {
        float *h = n->hidden + r * n->k;
        if (n->delta)
            for (long i = 0; i < n->k; i++) h[i] += n->delta[r * n->k + i];
        normalize(h, n->weight, n->eps, n->k, n->y + r * n->k);
    }
}

/* Runs a loop whose items are too small to be worth a second thread unless there are many. */
static void run_small(LoopBody body, const void *context, long count) {
    if (count < FEW_ROWS) body(context, 0, count);
    else run_parallel(body, context, count);
}

/* hidden [m, k] += delta (when there is one), then y = RMSNorm(hidden) * weight (arXiv 1910.07467). */
void add_rms_norm(float *hidden, const float *delta, long m, long k, const float *weight, float eps, float *y) {
    Norm n = {hidden, delta, weight, k, eps, y};
    run_small(norm_rows, &n, m);
}

typedef struct {
    const float *gate_up;
    long k;
    float *y;
} Gate;

static void gate_rows(const void *context, long begin, long end) {
    const Gate *g = context;
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (long r = begin; r < end; r++) {
        const float *gate = g->gate_up + r * 2 * g->k, *up = gate + g->k;
        float *y = g->y + r * g->k;
        for (long i = 0; i < g->k; i += 8) {
            __m256i lanes = first_lanes(g->k - i);
            __m256 v = _mm256_maskload_ps(gate + i, lanes);
            __m256 s = _mm256_div_ps(v, _mm256_add_ps(one, exp8(_mm256_xor_ps(v, sign))));
            _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(s, _mm256_maskload_ps(up + i, lanes)));
        }
    }
}

/* y [m, k] = silu(gate) * up, both side by side in gate_up [m, 2 k] (arXiv 2002.05202). */
void silu_product(const float *gate_up, long m, long k, float *y) {
    Gate g = {gate_up, k, y};
    run_small(gate_rows, &g, m);
}

/* Rotates pairs (i, i + half) of a head (arXiv 2104.09864, rotate-half form). */
static inline void rotate(float *x, const float *cosines, const float *sines, long half) {
    for (long i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

/* The paged cache of one layer: keys and values [blocks, kv_heads, block_size, d], float32 or float16; blocks are
 * `stride` elements apart. */
typedef struct {
    void *keys, *values;
    int kind;
    long stride, kv_heads, block_size, d;
} Cache;

static inline void store_vector(void *cache, int kind, long at, const float *x, long d) {
    if (kind == FLOAT32) memcpy((float *)cache + at, x, d * sizeof(float));
    else
        for (long i = 0; i < d; i++) ((uint16_t *)cache)[at + i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
}

static inline void store_token(const Cache *cache, const float *k, const float *v, int64_t slot) {
    long block = slot / cache->block_size, offset = slot % cache->block_size;
    for (long h = 0; h < cache->kv_heads; h++) {
        long at = block * cache->stride + (h * cache->block_size + offset) * cache->d;
        store_vector(cache->keys, cache->kind, at, k + h * cache->d, cache->d);
        store_vector(cache->values, cache->kind, at, v + h * cache->d, cache->d);
    }
}

typedef struct {
    float *qkv;
    const float *k, *v;
    long heads, half;
    const float *cosines, *sines, *q_norm, *k_norm;
    float eps;
    const int32_t *positions;
    const int64_t *slots;
    Cache cache;
} Tokens;

static void rotate_tokens(const void *context, long begin, long end) {
    const Tokens *t = context;
    const long d = t->cache.d, kv_heads = t->cache.kv_heads, both = t->heads + kv_heads;
    for (long r = begin; r < end; r++) {
        float *row = t->qkv + r * (both + kv_heads) * d;
        const float *c = t->cosines + t->positions[r] * t->half, *s = t->sines + t->positions[r] * t->half;
        for (long h = 0; h < both; h++) {
            const float *norm = h < t->heads ? t->q_norm : t->k_norm;
            if (norm) normalize(row + h * d, norm, t->eps, d, row + h * d);
            rotate(row + h * d, c, s, t->half);
        }
        store_token(&t->cache, row + t->heads * d, row + both * d, t->slots[r]);
    }
}

/* Turns the queries and keys in qkv [t, (heads + 2 kv_heads) * d] in place (after their norms, where there are any), and
 * writes keys and values to the cache at each token's slot. */
void rotate_and_store(float *qkv, long t, long heads, long kv_heads, long d, const float *cosines, const float *sines,
                      long half, const int32_t *positions, const int64_t *slots, const float *q_norm,
                      const float *k_norm, float eps, void *keys, void *values, int kind, long stride,
                      long block_size) {
    Tokens tokens = {.qkv = qkv, .heads = heads, .half = half, .cosines = cosines, .sines = sines, .q_norm = q_norm,
                     .k_norm = k_norm, .eps = eps, .positions = positions, .slots = slots,
                     .cache = {keys, values, kind, stride, kv_heads, block_size, d}};
    run_small(rotate_tokens, &tokens, t);
}

static void store_tokens(const void *context, long begin, long end) {
    const Tokens *t = context;
    const long width = t->cache.kv_heads * t->cache.d;
    for (long r = begin; r < end; r++) store_token(&t->cache, t->k + r * width, t->v + r * width, t->slots[r]);
}

/* Writes keys and values [t, kv_heads, d] to the cache, as they are. */
void store(const float *k, const float *v, long t, long kv_heads, long d, const int64_t *slots, void *keys, void *values,
           int kind, long stride, long block_size) {
    Tokens tokens = {.k = k, .v = v, .slots = slots, .cache = {keys, values, kind, stride, kv_heads, block_size, d}};
    run_small(store_tokens, &tokens, t);
}

/* ---- attention ------------------------------------------------------------------------------------------------------ */

typedef struct {
    Cache cache;
    const float *q;
    long q_stride, heads, window;
    const int32_t *block_tables, *sequences, *positions;
    long table_width;
    float scale, softcap, *y;
} Attention;

/* Up to four query heads of one token that share a key head, and the positions that they see. */
typedef struct {
    const float *q;
    float *y;
    const int32_t *table;
    long head, start, stop;
} Query;

/* A run of positions in one block: where the block's first vector of this head lies, and which positions are seen. */
typedef struct {
    long at, begin, end;
} Run;

static inline Run run_of(const Cache *cache, const Query *query, long block) {
    long first = block * cache->block_size, last = first + cache->block_size;
    return (Run){query->table[block] * cache->stride + query->head * cache->block_size * cache->d,
                 query->start > first ? query->start - first : 0,
                 (query->stop < last ? query->stop : last) - first};
}

static inline __attribute__((always_inline)) void score_heads(const int kind, const int count, const Attention *a,
                                                              const Query *query, float *scores, long stride) {
    const long d = a->cache.d, size = a->cache.block_size;
    for (long block = query->start / size; block * size < query->stop; block++) {
        const Run run = run_of(&a->cache, query, block);
        float *out = scores + block * size - query->start;
        for (long p = run.begin; p < run.end; p++) {
            __m256 sum[4];
            for (int g = 0; g < count; g++) sum[g] = _mm256_setzero_ps();
            for (long i = 0; i < d; i += 8) {
                __m256 k = load8(kind, a->cache.keys, run.at + p * d + i);
                for (int g = 0; g < count; g++)
                    sum[g] = _mm256_fmadd_ps(k, _mm256_loadu_ps(query->q + g * d + i), sum[g]);
            }
            for (int g = 0; g < count; g++) {
                float score = sum8(sum[g]) * a->scale;
                out[g * stride + p] = a->softcap > 0 ? a->softcap * tanhf(score / a->softcap) : score;
            }
        }
    }
}

/* Sums of the values, weighted; sixteen dimensions at a time, so that they stay in registers. */
static inline __attribute__((always_inline)) void mix_heads(const int kind, const int count, const Attention *a,
                                                            const Query *query, const float *weights, long stride) {
    const long d = a->cache.d, size = a->cache.block_size;
    for (long i = 0; i < d; i += 16) {
        const int wide = i + 16 <= d;
        __m256 sum[4][2];
        for (int g = 0; g < count; g++) sum[g][0] = sum[g][1] = _mm256_setzero_ps();
        for (long block = query->start / size; block * size < query->stop; block++) {
            const Run run = run_of(&a->cache, query, block);
            const float *in = weights + block * size - query->start;
            for (long p = run.begin; p < run.end; p++) {
                __m256 low = load8(kind, a->cache.values, run.at + p * d + i);
                __m256 high = wide ? load8(kind, a->cache.values, run.at + p * d + i + 8) : _mm256_setzero_ps();
                for (int g = 0; g < count; g++) {
                    __m256 w = _mm256_set1_ps(in[g * stride + p]);
                    sum[g][0] = _mm256_fmadd_ps(w, low, sum[g][0]);
                    sum[g][1] = _mm256_fmadd_ps(w, high, sum[g][1]);
                }
            }
        }
        for (int g = 0; g < count; g++) {
            _mm256_storeu_ps(query->y + g * d + i, sum[g][0]);
            if (wide) _mm256_storeu_ps(query->y + g * d + i + 8, sum[g][1]);
        }
    }
}

/* Turns scores into weights that sum to one. */
static inline void softmax(float *scores, long n) {
    __m256 top = _mm256_set1_ps(-INFINITY), sum = _mm256_setzero_ps();
    for (long i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(scores + i);
        __m256 keep = _mm256_castsi256_ps(first_lanes(n - i));
        top = _mm256_max_ps(top, _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, keep));
    }
    __m256 most = _mm256_set1_ps(max8(top));
    for (long i = 0; i < n; i += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i), most));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(first_lanes(n - i)));
        _mm256_storeu_ps(scores + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    float factor = 1.0f / sum8(sum);
    for (long i = 0; i < n; i++) scores[i] *= factor;
}

static inline __attribute__((always_inline)) void attend(const int kind, const int count, const Attention *a,
                                                         const Query *query) {
    long n = query->stop - query->start, stride = (n + 7) & ~7L;
    float *scores = scratch((size_t)count * stride * sizeof(float));
    score_heads(kind, count, a, query, scores, stride);
    for (int g = 0; g < count; g++) softmax(scores + g * stride, n);
    mix_heads(kind, count, a, query, scores, stride);
}

static inline __attribute__((always_inline)) void attend_some(const int kind, long count, const Attention *a,
                                                              const Query *query) {
    if (count == 4) attend(kind, 4, a, query);
    else if (count == 3) attend(kind, 3, a, query);
    else if (count == 2) attend(kind, 2, a, query);
    else attend(kind, 1, a, query);
}

/* Items are (token, key head, up to four of its query heads); the last tokens, which see most, come first. */
static void attend_items(const void *context, long begin, long end) {
    const Attention *a = context;
    const long d = a->cache.d, kv_heads = a->cache.kv_heads;
    const long shared = a->heads / kv_heads, parts = (shared + 3) / 4;
    for (long item = end - 1; item >= begin; item--) {
        long r = item / (kv_heads * parts), head = item / parts % kv_heads, part = item % parts;
        long first = head * shared + 4 * part, count = shared - 4 * part < 4 ? shared - 4 * part : 4;
        long stop = (long)a->positions[r] + 1, start = a->window > 0 && stop > a->window ? stop - a->window : 0;
        Query query = {a->q + r * a->q_stride + first * d, a->y + (r * a->heads + first) * d,
                       a->block_tables + a->sequences[r] * a->table_width, head, start, stop};
        if (a->cache.kind == FLOAT32) attend_some(FLOAT32, count, a, &query);
        else attend_some(FLOAT16, count, a, &query);
    }
}

/* y [t, heads * d]: causal attention of each token over its sequence's positions up to its own, or the last `window` of
 * them (0: all); scores are capped to +-softcap by tanh unless that is 0. Queries stand in rows of `q_stride` floats;
 * block_tables is [sequences, table_width]. */
void paged_attention(const float *q, long q_stride, long t, long heads, long kv_heads, long d, void *keys, void *values,
                     int kind, long stride, long block_size, const int32_t *block_tables, long table_width,
                     const int32_t *sequences, const int32_t *positions, long window, float scale, float softcap,
                     float *y) {
    Attention a = {{keys, values, kind, stride, kv_heads, block_size, d}, q, q_stride, heads, window, block_tables, sequences,
                   positions, table_width, scale, softcap, y};
    run_parallel(attend_items, &a, t * kv_heads * ((heads / kv_heads + 3) / 4));
}
