/* Sixteen output rows at a time, two groups side by side, with AVX-512 and its VNNI dot product. */
#define NAMED(name) name##_vnni
#define WIDTH 2
#define TILE 8
#define INTS __m512i
#define FLOATS __m512
#define ZERO_INTS() _mm512_setzero_si512()
#define ZERO_FLOATS() _mm512_setzero_ps()
#define BESIDE(a, b) _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1)
#define LOAD_32_BYTES(p, far) \
    BESIDE(_mm256_loadu_si256((const __m256i *)(p)), _mm256_loadu_si256((const __m256i *)((const char *)(p) + (far))))
#define LOAD_16_WIDENED(p, far)                                                               \
    _mm512_cvtepi8_epi16(_mm256_inserti128_si256(                                             \
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p))),                        \
        _mm_loadu_si128((const __m128i *)((const char *)(p) + (far))), 1))
#define LOAD_8_HALVES(p, far)                                                                 \
    _mm512_cvtph_ps(_mm256_inserti128_si256(                                                  \
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p))),                        \
        _mm_loadu_si128((const __m128i *)((const char *)(p) + (far))), 1))
#define NIBBLE(v, k) _mm512_and_si512(_mm512_srli_epi16(v, 4 * (k)), _mm512_set1_epi16(15))
#define TWO_COLUMNS(q) _mm512_set1_epi32(two_words(q))
#define DOT(sum, w, x) _mm512_dpwssd_epi32(sum, w, x)
#define TO_FLOATS(v) _mm512_cvtepi32_ps(v)
#define SPREAD(x) _mm512_set1_ps(x)
#define MULTIPLY(a, b) _mm512_mul_ps(a, b)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define STORE(p, row, group, v)                                                               \
    do {                                                                                      \
        store_group(p, row, group, _mm512_castps512_ps256(v));                                \
        if (((group) + 1) * GROUP < (p)->n)                                                   \
            store_group(p, row, (group) + 1, _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1))); \
    } while (0)
