/* The int4 and int8 products, written once and compiled twice: products.c sets NAMED, DOT and TILE before each inclusion.
 *
 * DOT(sum, w, x) adds to each 32-bit lane of `sum` the products of the two 16-bit lanes of w and x that lie there. These
 * sums are exact, and what is in floating point is the same in both, so both give the same bits.
 */

/* ---- int4 --------------------------------------------------------------------------------------------------------- */

/* Eight outputs of `tile` rows. A block's sum is exact: at most 32 * 15 * 32767, which float32 also holds exactly. */
static inline __attribute__((always_inline)) void NAMED(int4_tile)(
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
                    part[r] = DOT(part[r], n[k], two_columns(q + 2 * k));
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

static void NAMED(int4_groups)(const void *context, long begin, long end) {
    const Product *p = context;
    const long blocks = p->k / BLOCK;
    for (long g = begin; g < end; g++) {
        const uint8_t *w = (const uint8_t *)p->quants + g * blocks * 128;
        const uint16_t *s = p->scales + g * blocks * GROUP, *z = p->minima + g * blocks * GROUP;
        long r = 0;
        __m256 out[TILE];
        for (; r + TILE <= p->m; r += TILE) {
            NAMED(int4_tile)(TILE, p->x, r, blocks, w, s, z, out);
            for (int t = 0; t < TILE; t++) store_group(p, r + t, g, out[t]);
        }
        for (; r < p->m; r++) {
            NAMED(int4_tile)(1, p->x, r, blocks, w, s, z, out);
            store_group(p, r, g, out[0]);
        }
    }
}

/* ---- int8 --------------------------------------------------------------------------------------------------------- */

/* As above; a block's sum is at most 32 * 128 * 32767, within 32 bits. */
static inline __attribute__((always_inline)) void NAMED(int8_tile)(const int tile, const Quantized a, long row, long blocks,
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
                part[r] = DOT(part[r], w, two_columns(q));
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

static void NAMED(int8_groups)(const void *context, long begin, long end) {
    const Product *p = context;
    const long blocks = p->k / BLOCK;
    for (long g = begin; g < end; g++) {
        const int8_t *w = (const int8_t *)p->quants + g * blocks * 256;
        const uint16_t *s = p->scales + g * blocks * GROUP;
        long r = 0;
        __m256 out[TILE];
        for (; r + TILE <= p->m; r += TILE) {
            NAMED(int8_tile)(TILE, p->x, r, blocks, w, s, out);
            for (int t = 0; t < TILE; t++) store_group(p, r + t, g, out[t]);
        }
        for (; r < p->m; r++) {
            NAMED(int8_tile)(1, p->x, r, blocks, w, s, out);
            store_group(p, r, g, out[0]);
        }
    }
}
