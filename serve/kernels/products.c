/* Products of activations with weight matrices, in the layouts that serve/base/weights.py describes. */
#include "adapters.h"
#include "common.h"
#include "pool.h"

#define BLOCK 32
#define GROUP 8

/* ---- activations to 16 bits ---------------------------------------------------------------------------------------- */

/* One row, blocks of 32: x ~ scale * q with |q| <= 32767; `sums` holds scale * sum(q), which meets a weight's minimum.
 * (With 8 bits the error of the logits of a 30-layer model is near 3 % of their spread, enough to change answers; with 16
 * bits it is that of float32.) */
static void quantize_row(const float *x, long blocks, int16_t *q, float *scales, float *sums) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (long b = 0; b < blocks; b++, x += BLOCK, q += BLOCK) {
        __m256 v[4], top = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v[i]));
        }
        float scale = max8(top) / 32767.0f;
        __m256 inverse = _mm256_set1_ps(scale > 0 ? 1.0f / scale : 0.0f);
        __m256i n[4], total = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
            total = _mm256_add_epi32(total, n[i]);
        }
        for (int i = 0; i < 4; i += 2) {
            __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(n[i], n[i + 1]), 0xd8);
            _mm256_storeu_si256((__m256i *)(q + 8 * i), packed);
        }
        __m128i t = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        t = _mm_hadd_epi32(t, t);
        t = _mm_hadd_epi32(t, t);
        scales[b] = scale;
        sums[b] = scale * (float)_mm_cvtsi128_si32(t);
    }
}

typedef struct {
    int16_t *q;
    float *scales, *sums;
} Quantized;

/* One product under way: what a thread needs to do its groups of outputs. */
typedef struct {
    const float *input;
    long m, k, n;
    Quantized x;
    const void *quants;
    const uint16_t *scales, *minima;
    const float *bias;
    float *y;
    const Adapters *adapters;
    long site;
} Product;

static void quantize_rows(const void *context, long begin, long end) {
    const Product *p = context;
    const long blocks = p->k / BLOCK;
    for (long r = begin; r < end; r++)
        quantize_row(p->input + r * p->k, blocks, p->x.q + r * p->k, p->x.scales + r * blocks, p->x.sums + r * blocks);
}

static void compute_all_hidden(const void *context, long begin, long end) {
    const Product *p = context;
    for (long i = begin; i < end; i++) compute_hidden(p->adapters, p->site, p->input, p->k, i);
}

/* What needs the input alone: its rows in 16 bits, then the adapters' hidden values. */
static void read_input(const void *context, long begin, long end) {
    const Product *p = context;
    if (begin < p->m) quantize_rows(p, begin, end < p->m ? end : p->m);
    if (end > p->m) compute_all_hidden(p, begin > p->m ? begin - p->m : 0, end - p->m);
}

static void finish_blocks(const void *context, long begin, long end) {
    const Product *p = context;
    add_deltas(p->adapters, p->site, begin, end, p->m, p->n, p->bias, p->y);
}

static inline long blocks_of(const Product *p) { return (p->n + BLOCK_ROWS - 1) / BLOCK_ROWS; }

/* Rounds the input, then runs `body` over all blocks of outputs. */
static void run_product(Product *p, LoopBody body) {
    long blocks = p->k / BLOCK;
    float *memory = scratch((size_t)p->m * (p->k * sizeof(int16_t) + 2 * blocks * sizeof(float)));
    p->x = (Quantized){(int16_t *)(memory + 2 * p->m * blocks), memory, memory + p->m * blocks};
    if (p->adapters) run_parallel(read_input, p, p->m + delta_items(p->adapters, p->site));
    else if (p->m < FEW_ROWS) quantize_rows(p, 0, p->m);
    else run_parallel(quantize_rows, p, p->m);
    run_parallel(body, p, blocks_of(p));
}

static inline int32_t two_words(const int16_t *q) {
    int32_t word;
    memcpy(&word, q, 4);
    return word;
}

static inline __m256 half8(const uint16_t *h) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)h)); }

/* A group's eight outputs for one row; the last group of a matrix may have fewer. */
static inline void store_group(const Product *p, long row, long group, __m256 v) {
    long column = group * GROUP, count = p->n - column;
    float *y = p->y + row * p->n + column;
    const float *bias = p->bias ? p->bias + column : NULL;
    if (count >= GROUP) {
        _mm256_storeu_ps(y, bias ? _mm256_add_ps(v, _mm256_loadu_ps(bias)) : v);
        return;
    }
    float lanes[GROUP];
    _mm256_storeu_ps(lanes, v);
    for (long i = 0; i < count; i++) y[i] = bias ? lanes[i] + bias[i] : lanes[i];
}

/* Asks memory for what falls to one of `steps` steps. */
static inline __attribute__((always_inline)) void ask_for(const Stretches *s, long step, long steps) {
    for (long i = step; i < s->count; i += steps)
        for (const char *line = s->begin[i]; line < s->end[i]; line += 64) _mm_prefetch(line, _MM_HINT_T1);
}

/* Asks for the same bytes of the next `width` groups: a matrix lies in more pieces than the processor foresees. */
static inline __attribute__((always_inline)) void ask_for_next(const void *now, long group, const int bytes, const int width) {
    for (int g = 0; g < width; g++)
        for (int line = 0; line < bytes; line += 64) _mm_prefetch((const char *)now + (width + g) * group + line, _MM_HINT_T0);
}

/* ---- int4 and int8 ------------------------------------------------------------------------------------------------- */

#include "lanes256.h"
#include "tiles.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#include "lanes512.h"
#include "tiles.h"
#pragma GCC pop_options

static int vnni_allowed = 1;

/* Whether the products use the dot product instructions of AVX-512 VNNI. */
int uses_vnni(void) { return vnni_allowed && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl"); }

/* Lets them, or not; the results are the same. */
void allow_vnni(int allowed) { vnni_allowed = allowed; }

/* y [m, n] = x [m, k] * W^T (+ bias) (+ deltas of `adapters`, unless NULL, at `site`), W int4 [n, k]. */
void int4_product(const float *x, long m, long k, const uint8_t *quants, const uint16_t *scales, const uint16_t *minima,
                  long n, const float *bias, float *y, const Adapters *adapters, long site) {
    Product p = {x, m, k, n, .quants = quants, .scales = scales, .minima = minima, .bias = bias, .y = y,
                 .adapters = adapters, .site = site};
    run_product(&p, uses_vnni() ? int4_blocks_vnni : int4_blocks_avx2);
}

/* As above, W int8 [n, k]. */
void int8_product(const float *x, long m, long k, const int8_t *quants, const uint16_t *scales, long n, const float *bias,
                  float *y, const Adapters *adapters, long site) {
    Product p = {x, m, k, n, .quants = quants, .scales = scales, .bias = bias, .y = y, .adapters = adapters, .site = site};
    run_product(&p, uses_vnni() ? int8_blocks_vnni : int8_blocks_avx2);
}

/* ---- dense -------------------------------------------------------------------------------------------------------- */

/* `rows` by `columns` outputs; each is one vector sum along k, then its lanes, then what is left of k. */
static inline __attribute__((always_inline)) void dense_tile(const int kind, const int rows, const int columns,
                                                             const Product *p, long row, long first) {
    const float *x = p->input + row * p->k;
    const void *w = p->quants;
    const long k = p->k;
    __m256 sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sum[r][c] = _mm256_setzero_ps();
    long i = 0;
    for (; i + 8 <= k; i += 8) {
        __m256 v[4];
        for (int c = 0; c < columns; c++) v[c] = load8(kind, w, (first + c) * k + i);
        for (int r = 0; r < rows; r++) {
            __m256 a = _mm256_loadu_ps(x + r * k + i);
            for (int c = 0; c < columns; c++) sum[r][c] = _mm256_fmadd_ps(a, v[c], sum[r][c]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            float total = sum8(sum[r][c]);
            for (long j = i; j < k; j++) total = fmaf(x[r * k + j], load1(kind, w, (first + c) * k + j), total);
            p->y[(row + r) * p->n + first + c] = p->bias ? total + p->bias[first + c] : total;
        }
}

/* Outputs in pairs of columns. */
static inline __attribute__((always_inline)) void dense_pairs(const int kind, const Product *p, long begin, long end) {
    for (long c = 2 * begin; c < 2 * end && c < p->n; c += 2) {
        long r = 0;
        if (c + 2 <= p->n) {
            for (; r + 4 <= p->m; r += 4) dense_tile(kind, 4, 2, p, r, c);
            for (; r < p->m; r++) dense_tile(kind, 1, 2, p, r, c);
        }
        for (; r < p->m; r++) dense_tile(kind, 1, 1, p, r, c);
    }
}

static void dense_float32(const void *p, long begin, long end) { dense_pairs(FLOAT32, p, begin, end); }
static void dense_float16(const void *p, long begin, long end) { dense_pairs(FLOAT16, p, begin, end); }
static void dense_bfloat16(const void *p, long begin, long end) { dense_pairs(BFLOAT16, p, begin, end); }

/* As above, W [n, k] of float32, float16 or bfloat16 as `kind` says. */
void dense_product(const float *x, long m, long k, const void *w, int kind, long n, const float *bias, float *y,
                   const Adapters *adapters, long site) {
    Product p = {x, m, k, n, .quants = w, .bias = bias, .y = y, .adapters = adapters, .site = site};
    LoopBody body = kind == FLOAT32 ? dense_float32 : kind == FLOAT16 ? dense_float16 : dense_bfloat16;
    if (adapters) run_parallel(compute_all_hidden, &p, delta_items(adapters, site));
    run_parallel(body, &p, (n + 1) / 2);
    if (adapters) run_parallel(finish_blocks, &p, blocks_of(&p));
}
