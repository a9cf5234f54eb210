/* What the kernels share: vector loads, sums, e^x, and a buffer that is allocated once.
 *
 * One rule holds for all kernels: the result for a token depends on that token alone (and on the keys and values it attends
 * to), bit for bit, however many tokens are computed in the call and however the work is parted among threads. So the text
 * of a greedy request does not depend on what else is in the batch.
 */
#ifndef TUNECHAT_COMMON_H
#define TUNECHAT_COMMON_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Below this many rows the small loops are not worth a second thread. */
#define FEW_ROWS 8

enum { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

static inline __attribute__((always_inline)) __m256 load8(const int kind, const void *base, long i) {
    if (kind == FLOAT32) return _mm256_loadu_ps((const float *)base + i);
    __m128i v = _mm_loadu_si128((const __m128i *)((const uint16_t *)base + i));
    if (kind == FLOAT16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

static inline float load1(const int kind, const void *base, long i) {
    if (kind == FLOAT32) return ((const float *)base)[i];
    uint16_t h = ((const uint16_t *)base)[i];
    if (kind == FLOAT16) return _cvtsh_ss(h);
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Range reduction by ln 2 in two parts, then a polynomial of degree 6; relative error below 3e-7 on [-87, 88]. */
static inline __m256 exp8(__m256 x) {
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.0f)), _mm256_set1_ps(88.0f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 720);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float max8(__m256 v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* Lanes 0 to n - 1 set, for the last few elements of a row. */
static inline __m256i first_lanes(long n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* A buffer of the calling thread and of the file that includes this, which only ever grows. */
static inline void *scratch(size_t bytes) {
    static __thread void *memory = NULL;
    static __thread size_t size = 0;
    if (bytes > size) {
        free(memory);
        size = (bytes + 4095) & ~(size_t)4095;
        memory = aligned_alloc(64, size);
        if (!memory) abort();
    }
    return memory;
}

#endif
