/* Sixteen floats as two registers of AVX2. */
#define NAMED(name) name##_avx2
#define HIDDEN_TOKENS 1
#define EXPAND_BLOCKS 1
typedef struct {
    __m256 low, high;
} NAMED(Sixteen);
#define SIXTEEN NAMED(Sixteen)
#define BOTH(first, second) ((SIXTEEN){first, second})
#define ZERO() BOTH(_mm256_setzero_ps(), _mm256_setzero_ps())
#define SPREAD(x) BOTH(_mm256_set1_ps(x), _mm256_set1_ps(x))
#define LOAD(p) BOTH(_mm256_loadu_ps(p), _mm256_loadu_ps((p) + 8))
#define LOAD_HALVES(p) BOTH(load8(FLOAT16, p, 0), load8(FLOAT16, p, 8))
#define LOAD_FIRST(p, n) \
    BOTH(_mm256_maskload_ps(p, first_lanes(n)), (n) > 8 ? _mm256_maskload_ps((p) + 8, first_lanes((n) - 8)) : _mm256_setzero_ps())
#define STORE(p, v) (_mm256_storeu_ps(p, (v).low), _mm256_storeu_ps((p) + 8, (v).high))
#define STORE_FIRST(p, n, v)                                                      \
    do {                                                                          \
        _mm256_maskstore_ps(p, first_lanes(n), (v).low);                          \
        if ((n) > 8) _mm256_maskstore_ps((p) + 8, first_lanes((n) - 8), (v).high); \
    } while (0)
#define MULTIPLY(a, b) BOTH(_mm256_mul_ps((a).low, (b).low), _mm256_mul_ps((a).high, (b).high))
#define SUBTRACT(a, b) BOTH(_mm256_sub_ps((a).low, (b).low), _mm256_sub_ps((a).high, (b).high))
#define MULTIPLY_ADD(a, b, c) BOTH(_mm256_fmadd_ps((a).low, (b).low, (c).low), _mm256_fmadd_ps((a).high, (b).high, (c).high))
#define SUM(v) sum8(_mm256_add_ps((v).low, (v).high))
