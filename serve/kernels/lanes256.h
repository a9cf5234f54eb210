/* Eight output rows at a time, with AVX2: what tiles.h needs to be compiled for it. */
#define NAMED(name) name##_avx2
#define WIDTH 1
#define TILE 4
#define INTS __m256i
#define FLOATS __m256
#define ZERO_INTS() _mm256_setzero_si256()
#define ZERO_FLOATS() _mm256_setzero_ps()
/* A group's bytes at p; `far` is how many bytes on the next group's lie. */
#define LOAD_32_BYTES(p, far) ((void)(far), _mm256_loadu_si256((const __m256i *)(p)))
#define LOAD_16_WIDENED(p, far) ((void)(far), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p))))
#define LOAD_8_HALVES(p, far) ((void)(far), half8(p))
#define NIBBLE(v, k) _mm256_and_si256(_mm256_srli_epi16(v, 4 * (k)), _mm256_set1_epi16(15))
#define TWO_COLUMNS(q) _mm256_set1_epi32(two_words(q))
#define DOT(sum, w, x) _mm256_add_epi32(sum, _mm256_madd_epi16(w, x))
#define TO_FLOATS(v) _mm256_cvtepi32_ps(v)
#define SPREAD(x) _mm256_set1_ps(x)
#define MULTIPLY(a, b) _mm256_mul_ps(a, b)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define STORE(p, row, group, v) store_group(p, row, group, v)
