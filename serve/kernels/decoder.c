/* What a decoder layer does between its products: norms, activation, rotation, the paged cache, attention. */
#include "common.h"

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

/* hidden [m, k] += delta (when there is one), then y = RMSNorm(hidden) * weight (arXiv 1910.07467). */
void add_rms_norm(float *hidden, const float *delta, long m, long k, const float *weight, float eps, float *y) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < m; r++) {
        float *h = hidden + r * k;
        if (delta)
            for (long i = 0; i < k; i++) h[i] += delta[r * k + i];
        normalize(h, weight, eps, k, y + r * k);
    }
}

/* y [m, k] = silu(gate) * up, both side by side in gate_up [m, 2 k] (arXiv 2002.05202). */
void silu_product(const float *gate_up, long m, long k, float *y) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
#pragma omp parallel for schedule(static)
    for (long r = 0; r < m; r++) {
        const float *gate = gate_up + r * 2 * k, *up = gate + k;
        for (long i = 0; i < k; i += 8) {
            __m256i lanes = first_lanes(k - i);
            __m256 g = _mm256_maskload_ps(gate + i, lanes);
            __m256 s = _mm256_div_ps(g, _mm256_add_ps(one, exp8(_mm256_xor_ps(g, sign))));
            _mm256_maskstore_ps(y + r * k + i, lanes, _mm256_mul_ps(s, _mm256_maskload_ps(up + i, lanes)));
        }
    }
}

/* Rotates pairs (i, i + half) of a head (arXiv 2104.09864, rotate-half form). */
static inline void rotate(float *x, const float *cosines, const float *sines, long half) {
    for (long i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

static inline void store_cache(void *cache, int kind, long at, const float *x, long d) {
    if (kind == FLOAT32) memcpy((float *)cache + at, x, d * sizeof(float));
    else
        for (long i = 0; i < d; i++) ((uint16_t *)cache)[at + i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
}

static inline void store_token(const float *k, const float *v, long kv_heads, long d, int64_t slot, void *keys,
                               void *values, int kind, long block_size) {
    long block = slot / block_size, offset = slot % block_size;
    for (long h = 0; h < kv_heads; h++) {
        long at = ((block * kv_heads + h) * block_size + offset) * d;
        store_cache(keys, kind, at, k + h * d, d);
        store_cache(values, kind, at, v + h * d, d);
    }
}

/* Turns the queries and keys in qkv [t, (heads + 2 kv_heads) * d] in place (after their norms, where there are any), and
 * writes keys and values to the cache [blocks, kv_heads, block_size, d] at each token's slot. */
void rotate_and_store(float *qkv, long t, long heads, long kv_heads, long d, const float *cosines, const float *sines,
                      long half, const int32_t *positions, const int64_t *slots, const float *q_norm,
                      const float *k_norm, float eps, void *keys, void *values, int kind, long block_size) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < t; r++) {
        float *row = qkv + r * (heads + 2 * kv_heads) * d;
        const float *c = cosines + (long)positions[r] * half, *s = sines + (long)positions[r] * half;
        for (long h = 0; h < heads + kv_heads; h++) {
            const float *norm = h < heads ? q_norm : k_norm;
            if (norm) normalize(row + h * d, norm, eps, d, row + h * d);
            rotate(row + h * d, c, s, half);
        }
        store_token(row + heads * d, row + (heads + kv_heads) * d, kv_heads, d, slots[r], keys, values, kind, block_size);
    }
}

/* Writes keys and values [t, kv_heads, d] to the cache, as they are. */
void store(const float *k, const float *v, long t, long kv_heads, long d, const int64_t *slots, void *keys, void *values,
           int kind, long block_size) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < t; r++)
        store_token(k + r * kv_heads * d, v + r * kv_heads * d, kv_heads, d, slots[r], keys, values, kind, block_size);
}

/* ---- attention ------------------------------------------------------------------------------------------------------ */

/* Scores of up to four query heads that share a key head, for positions start to stop. */
static inline __attribute__((always_inline)) void score_heads(const int kind, const int count, const float *q, long d,
                                                              const void *keys, const int32_t *table, long head,
                                                              long kv_heads, long block_size, long start, long stop,
                                                              float scale, float softcap, float *scores,
                                                              long stride) {
    for (long p = start; p < stop; p++) {
        long at = (((long)table[p / block_size] * kv_heads + head) * block_size + p % block_size) * d;
        __m256 sum[4];
        for (int g = 0; g < count; g++) sum[g] = _mm256_setzero_ps();
        for (long i = 0; i < d; i += 8) {
            __m256 k = load8(kind, keys, at + i);
            for (int g = 0; g < count; g++) sum[g] = _mm256_fmadd_ps(k, _mm256_loadu_ps(q + g * d + i), sum[g]);
        }
        for (int g = 0; g < count; g++) {
            float score = sum8(sum[g]) * scale;
            scores[g * stride + p - start] = softcap > 0 ? softcap * tanhf(score / softcap) : score;
        }
    }
}

/* Weighted sums of the values for up to four query heads. */
static inline __attribute__((always_inline)) void mix_heads(const int kind, const int count, const float *weights,
                                                            long stride, const void *values, const int32_t *table,
                                                            long head, long kv_heads, long block_size, long start,
                                                            long stop, long d, float *y) {
    for (long i = 0; i < d; i += 16) {
        const int wide = i + 16 <= d;
        __m256 sum[4][2];
        for (int g = 0; g < count; g++) sum[g][0] = sum[g][1] = _mm256_setzero_ps();
        for (long p = start; p < stop; p++) {
            long at = (((long)table[p / block_size] * kv_heads + head) * block_size + p % block_size) * d + i;
            __m256 a = load8(kind, values, at), b = wide ? load8(kind, values, at + 8) : _mm256_setzero_ps();
            for (int g = 0; g < count; g++) {
                __m256 w = _mm256_set1_ps(weights[g * stride + p - start]);
                sum[g][0] = _mm256_fmadd_ps(w, a, sum[g][0]);
                sum[g][1] = _mm256_fmadd_ps(w, b, sum[g][1]);
            }
        }
        for (int g = 0; g < count; g++) {
            _mm256_storeu_ps(y + g * d + i, sum[g][0]);
            if (wide) _mm256_storeu_ps(y + g * d + i + 8, sum[g][1]);
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

static inline __attribute__((always_inline)) void attend(const int kind, const int count, const float *q, long d,
                                                         const void *keys, const void *values, const int32_t *table,
                                                         long head, long kv_heads, long block_size, long start,
                                                         long stop, float scale, float softcap, float *y) {
    long stride = (stop - start + 7) & ~7L;
    float *scores = scratch((size_t)count * stride * sizeof(float));
    score_heads(kind, count, q, d, keys, table, head, kv_heads, block_size, start, stop, scale, softcap, scores,
                stride);
    for (int g = 0; g < count; g++) softmax(scores + g * stride, stop - start);
    mix_heads(kind, count, scores, stride, values, table, head, kv_heads, block_size, start, stop, d, y);
}

static inline __attribute__((always_inline)) void attend_some(const int kind, long count, const float *q, long d,
                                                              const void *keys, const void *values,
                                                              const int32_t *table, long head, long kv_heads,
                                                              long block_size, long start, long stop, float scale,
                                                              float softcap, float *y) {
#define ATTEND(N) attend(kind, N, q, d, keys, values, table, head, kv_heads, block_size, start, stop, scale, softcap, y)
    if (count == 4) ATTEND(4);
    else if (count == 3) ATTEND(3);
    else if (count == 2) ATTEND(2);
    else ATTEND(1);
#undef ATTEND
}

/* y [t, heads * d]: causal attention of each token over its sequence's positions up to its own, or the last `window` of
 * them (0: all); scores are capped to +-softcap by tanh unless that is 0. Queries stand in rows of `q_stride` floats; block_tables is [sequences, table_width]. */
void paged_attention(const float *q, long q_stride, long t, long heads, long kv_heads, long d, const void *keys,
                     const void *values, int kind, long block_size, const int32_t *block_tables, long table_width,
                     const int32_t *sequences, const int32_t *positions, long window, float scale, float softcap,
                     float *y) {
    long shared = heads / kv_heads, parts = (shared + 3) / 4;
#pragma omp parallel for schedule(dynamic, 1)
    for (long task = t * kv_heads * parts - 1; task >= 0; task--) {
        long r = task / (kv_heads * parts), head = task / parts % kv_heads, part = task % parts;
        long first = head * shared + 4 * part, count = shared - 4 * part < 4 ? shared - 4 * part : 4;
        long stop = (long)positions[r] + 1, start = window > 0 && stop > window ? stop - window : 0;
        const int32_t *table = block_tables + (long)sequences[r] * table_width;
        const float *query = q + r * q_stride + first * d;
        float *out = y + (r * heads + first) * d;
        if (kind == FLOAT32)
            attend_some(FLOAT32, count, query, d, keys, values, table, head, kv_heads, block_size, start, stop, scale,
                        softcap, out);
        else
            attend_some(FLOAT16, count, query, d, keys, values, table, head, kv_heads, block_size, start, stop, scale,
                        softcap, out);
    }
}
