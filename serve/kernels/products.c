/* Products of activations with weight matrices, in the layouts that serve/base/weights.py describes. */
#include "common.h"

#define BLOCK 32
#define GROUP 8
#define TILE 4

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

static Quantized quantized_buffers(long rows, long columns) {
    long blocks = columns / BLOCK;
    char *memory = scratch((size_t)rows * (columns * sizeof(int16_t) + 2 * blocks * sizeof(float)));
    float *scales = (float *)memory;
    float *sums = scales + rows * blocks;
    return (Quantized){(int16_t *)(sums + rows * blocks), scales, sums};
}

static inline __m256i two_columns(const int16_t *q) {
    int32_t word;
    memcpy(&word, q, 4);
    return _mm256_set1_epi32(word);
}

static inline __m256 half8(const uint16_t *h) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)h)); }

/* A group's eight outputs for one row; the last group of a matrix may have fewer. */
static inline void store_group(float *y, const float *bias, __m256 v, long count) {
    if (count >= GROUP) {
        _mm256_storeu_ps(y, bias ? _mm256_add_ps(v, _mm256_loadu_ps(bias)) : v);
        return;
    }
    float lanes[GROUP];
    _mm256_storeu_ps(lanes, v);
    for (long i = 0; i < count; i++) y[i] = bias ? lanes[i] + bias[i] : lanes[i];
}

/* ---- int4 --------------------------------------------------------------------------------------------------------- */

/* Eight outputs of `tile` rows. A block's sum is exact: at most 32 * 15 * 32767, which float32 also holds exactly. */
static inline __attribute__((always_inline)) void int4_tile(
    const int tile, const Quantized a, long row, long blocks, const uint8_t *quants, const uint16_t *scales,
    const uint16_t *minima, __m256 *out) {
    const __m256i low = _mm256_set1_epi16(15);
    __m256 sum[TILE];
    for (int r = 0; r < tile; r++) sum[r] = _mm256_setzero_ps();
    for (long b = 0; b < blocks; b++, quants += 128, scales += GROUP, minima += GROUP) {
        __m256i part[TILE];
        for (int r = 0; r < tile; r++) part[r] = _mm256_setzero_si256();
        for (int c = 0; c < 4; c++) {
            __m256i w = _mm256_loadu_si256((const __m256i *)(quants + 32 * c));
            __m256i n[4] = {_mm256_and_si256(w, low), _mm256_and_si256(_mm256_srli_epi16(w, 4), low),
                            _mm256_and_si256(_mm256_srli_epi16(w, 8), low), _mm256_srli_epi16(w, 12)};
            for (int r = 0; r < tile; r++) {
                const int16_t *q = a.q + ((row + r) * blocks + b) * BLOCK + 8 * c;
                for (int k = 0; k < 4; k++)
                    part[r] = _mm256_add_epi32(part[r], _mm256_madd_epi16(n[k], two_columns(q + 2 * k)));
            }
        }
        __m256 scale = half8(scales), minimum = half8(minima);
        for (int r = 0; r < tile; r++) {
            long i = (row + r) * blocks + b;
            __m256 n = _mm256_cvtepi32_ps(part[r]);
            sum[r] = _mm256_fmadd_ps(n, _mm256_mul_ps(scale, _mm256_set1_ps(a.scales[i])), sum[r]);
            sum[r] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(a.sums[i]), sum[r]);
        }
    }
    for (int r = 0; r < tile; r++) out[r] = sum[r];
}

/* y [m, n] = x [m, k] * W^T (+ bias), W int4 [n, k]. */
void int4_product(const float *x, long m, long k, const uint8_t *quants, const uint16_t *scales, const uint16_t *minima,
                  long n, const float *bias, float *y) {
    long blocks = k / BLOCK, groups = (n + GROUP - 1) / GROUP;
    Quantized a = quantized_buffers(m, k);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long r = 0; r < m; r++)
            quantize_row(x + r * k, blocks, a.q + r * k, a.scales + r * blocks, a.sums + r * blocks);
#pragma omp for schedule(static)
        for (long g = 0; g < groups; g++) {
            const uint8_t *w = quants + g * blocks * 128;
            const uint16_t *s = scales + g * blocks * GROUP, *z = minima + g * blocks * GROUP;
            long column = g * GROUP, count = n - column, r = 0;
            __m256 out[TILE];
            for (; r + TILE <= m; r += TILE) {
                int4_tile(TILE, a, r, blocks, w, s, z, out);
                for (int t = 0; t < TILE; t++)
                    store_group(y + (r + t) * n + column, bias ? bias + column : NULL, out[t], count);
            }
            for (; r < m; r++) {
                int4_tile(1, a, r, blocks, w, s, z, out);
                store_group(y + r * n + column, bias ? bias + column : NULL, out[0], count);
            }
        }
    }
}

/* ---- int8 --------------------------------------------------------------------------------------------------------- */

/* As above; a block's sum is at most 32 * 128 * 32767, within 32 bits. */
static inline __attribute__((always_inline)) void int8_tile(const int tile, const Quantized a, long row, long blocks,
                                                            const int8_t *quants, const uint16_t *scales, __m256 *out) {
    __m256 sum[TILE];
    for (int r = 0; r < tile; r++) sum[r] = _mm256_setzero_ps();
    for (long b = 0; b < blocks; b++, quants += 256, scales += GROUP) {
        __m256i part[TILE];
        for (int r = 0; r < tile; r++) part[r] = _mm256_setzero_si256();
        for (int c = 0; c < 16; c++) {
            __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(quants + 16 * c)));
            for (int r = 0; r < tile; r++) {
                const int16_t *q = a.q + ((row + r) * blocks + b) * BLOCK + 2 * c;
                part[r] = _mm256_add_epi32(part[r], _mm256_madd_epi16(w, two_columns(q)));
            }
        }
        __m256 scale = half8(scales);
        for (int r = 0; r < tile; r++) {
            __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(a.scales[(row + r) * blocks + b]));
            sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(part[r]), factor, sum[r]);
        }
    }
    for (int r = 0; r < tile; r++) out[r] = sum[r];
}

/* y [m, n] = x [m, k] * W^T (+ bias), W int8 [n, k]. */
void int8_product(const float *x, long m, long k, const int8_t *quants, const uint16_t *scales, long n, const float *bias,
                  float *y) {
    long blocks = k / BLOCK, groups = (n + GROUP - 1) / GROUP;
    Quantized a = quantized_buffers(m, k);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long r = 0; r < m; r++)
            quantize_row(x + r * k, blocks, a.q + r * k, a.scales + r * blocks, a.sums + r * blocks);
#pragma omp for schedule(static)
        for (long g = 0; g < groups; g++) {
            const int8_t *w = quants + g * blocks * 256;
            const uint16_t *s = scales + g * blocks * GROUP;
            long column = g * GROUP, count = n - column, r = 0;
            __m256 out[TILE];
            for (; r + TILE <= m; r += TILE) {
                int8_tile(TILE, a, r, blocks, w, s, out);
                for (int t = 0; t < TILE; t++)
                    store_group(y + (r + t) * n + column, bias ? bias + column : NULL, out[t], count);
            }
            for (; r < m; r++) {
                int8_tile(1, a, r, blocks, w, s, out);
                store_group(y + r * n + column, bias ? bias + column : NULL, out[0], count);
            }
        }
    }
}

/* ---- dense -------------------------------------------------------------------------------------------------------- */

/* `rows` by `columns` outputs; each is one vector sum along k, then its lanes, then what is left of k. */
static inline __attribute__((always_inline)) void dense_tile(const int kind, const int rows, const int columns,
                                                             const float *x, const void *w, long first, long k, long n,
                                                             const float *bias, float *y) {
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
            y[r * n + first + c] = bias ? total + bias[first + c] : total;
        }
}

static inline __attribute__((always_inline)) void dense(const int kind, const float *x, long m, long k, const void *w,
                                                        long n, const float *bias, float *y) {
#pragma omp parallel for schedule(static)
    for (long pair = 0; pair < (n + 1) / 2; pair++) {
        long c = 2 * pair, r = 0;
        if (c + 2 <= n) {
            for (; r + 4 <= m; r += 4) dense_tile(kind, 4, 2, x + r * k, w, c, k, n, bias, y + r * n);
            for (; r < m; r++) dense_tile(kind, 1, 2, x + r * k, w, c, k, n, bias, y + r * n);
        } else {
            for (; r < m; r++) dense_tile(kind, 1, 1, x + r * k, w, c, k, n, bias, y + r * n);
        }
    }
}

/* y [m, n] = x [m, k] * W^T (+ bias), W [n, k] of float32, float16 or bfloat16 as `kind` says. */
void dense_product(const float *x, long m, long k, const void *w, int kind, long n, const float *bias, float *y) {
    if (kind == FLOAT32) dense(FLOAT32, x, m, k, w, n, bias, y);
    else if (kind == FLOAT16) dense(FLOAT16, x, m, k, w, n, bias, y);
    else dense(BFLOAT16, x, m, k, w, n, bias, y);
}
