/* The int4 and int8 products, written once and compiled for each width of vectors (lanes256.h, lanes512.h).
 *
 * Sums of whole numbers are exact, and what is in floating point is done lane by lane in the same order, so all widths give
 * the same bits.
 */

/* A group's outputs for `tile` rows. A block's sum is at most 32 * 15 * 32767, which float32 also holds exactly. */
static inline __attribute__((always_inline)) void NAMED(int4_tile)(const int tile, const Product *p, long row, long group,
                                                                   long far, const Stretches *ahead) {
    const long blocks = p->k / BLOCK;
    const uint8_t *quants = (const uint8_t *)p->quants + group * blocks * 128;
    const uint16_t *scales = p->scales + group * blocks * GROUP, *minima = p->minima + group * blocks * GROUP;
    FLOATS sum[TILE];
    for (int r = 0; r < tile; r++) sum[r] = ZERO_FLOATS();
    for (long b = 0; b < blocks; b++, quants += 128, scales += GROUP, minima += GROUP) {
        if (row == 0) {
            ask_for_next(quants, blocks * 128, 128, WIDTH);
            if (b % 4 == 0) ask_for_next(scales, blocks * GROUP * 2, 64, WIDTH), ask_for_next(minima, blocks * GROUP * 2, 64, WIDTH);
            if (ahead) ask_for(ahead, b, blocks);
        }
        INTS part[TILE];
        for (int r = 0; r < tile; r++) part[r] = ZERO_INTS();
        for (int c = 0; c < 4; c++) {
            INTS w = LOAD_32_BYTES(quants + 32 * c, far * blocks * 128);
            INTS n[4] = {NIBBLE(w, 0), NIBBLE(w, 1), NIBBLE(w, 2), NIBBLE(w, 3)};
            for (int r = 0; r < tile; r++) {
                const int16_t *q = p->x.q + ((row + r) * blocks + b) * BLOCK + 8 * c;
                for (int k = 0; k < 4; k++) part[r] = DOT(part[r], n[k], TWO_COLUMNS(q + 2 * k));
            }
        }
        FLOATS scale = LOAD_8_HALVES(scales, far * blocks * GROUP * 2);
        FLOATS minimum = LOAD_8_HALVES(minima, far * blocks * GROUP * 2);
        for (int r = 0; r < tile; r++) {
            long i = (row + r) * blocks + b;
            sum[r] = MULTIPLY_ADD(TO_FLOATS(part[r]), MULTIPLY(scale, SPREAD(p->x.scales[i])), sum[r]);
            sum[r] = MULTIPLY_ADD(minimum, SPREAD(p->x.sums[i]), sum[r]);
        }
    }
    for (int r = 0; r < tile; r++) STORE(p, row + r, group, sum[r]);
}

/* As above; a block's sum is at most 32 * 128 * 32767, within 32 bits. */
static inline __attribute__((always_inline)) void NAMED(int8_tile)(const int tile, const Product *p, long row, long group,
                                                                   long far, const Stretches *ahead) {
    const long blocks = p->k / BLOCK;
    const int8_t *quants = (const int8_t *)p->quants + group * blocks * 256;
    const uint16_t *scales = p->scales + group * blocks * GROUP;
    FLOATS sum[TILE];
    for (int r = 0; r < tile; r++) sum[r] = ZERO_FLOATS();
    for (long b = 0; b < blocks; b++, quants += 256, scales += GROUP) {
        if (row == 0) {
            ask_for_next(quants, blocks * 256, 256, WIDTH);
            if (b % 4 == 0) ask_for_next(scales, blocks * GROUP * 2, 64, WIDTH);
            if (ahead) ask_for(ahead, b, blocks);
        }
        INTS part[TILE];
        for (int r = 0; r < tile; r++) part[r] = ZERO_INTS();
        for (int c = 0; c < 16; c++) {
            INTS w = LOAD_16_WIDENED(quants + 16 * c, far * blocks * 256);
            for (int r = 0; r < tile; r++)
                part[r] = DOT(part[r], w, TWO_COLUMNS(p->x.q + ((row + r) * blocks + b) * BLOCK + 2 * c));
        }
        FLOATS scale = LOAD_8_HALVES(scales, far * blocks * GROUP * 2);
        for (int r = 0; r < tile; r++) {
            FLOATS factor = MULTIPLY(scale, SPREAD(p->x.scales[(row + r) * blocks + b]));
            sum[r] = MULTIPLY_ADD(TO_FLOATS(part[r]), factor, sum[r]);
        }
    }
    for (int r = 0; r < tile; r++) STORE(p, row + r, group, sum[r]);
}

/* Each block of outputs is computed WIDTH groups at a time; a last group that has no neighbour stands in for it. The first tile
 * asks for what comes next. */
#define EACH_TILE(tile_of)                                                                                  \
    for (long group = 2 * begin; group < 2 * end && group < groups; group += WIDTH) {                       \
        const long far = group + 1 < groups, m = p->m;                                                      \
        Stretches found, *ahead = NULL;                                                                     \
        if (p->adapters && group % 2 == 0) find_stretches(p->adapters, p->site, group / 2, ahead = &found); \
        long r = 0;                                                                                         \
        for (; r + TILE <= m; r += TILE) tile_of(TILE, p, r, group, far, ahead);                            \
        for (; TILE > 4 && r + 4 <= m; r += 4) tile_of(4, p, r, group, far, ahead);                         \
        for (; r < m; r++) tile_of(1, p, r, group, far, ahead);                                             \
    }                                                                                                       \
    if (p->adapters) finish_blocks(p, begin, end);

static void NAMED(int4_blocks)(const void *context, long begin, long end) {
    const Product *p = context;
    const long groups = (p->n + GROUP - 1) / GROUP;
    EACH_TILE(NAMED(int4_tile))
}

static void NAMED(int8_blocks)(const void *context, long begin, long end) {
    const Product *p = context;
    const long groups = (p->n + GROUP - 1) / GROUP;
    EACH_TILE(NAMED(int8_tile))
}

#undef EACH_TILE
#undef NAMED
#undef WIDTH
#undef TILE
#undef INTS
#undef FLOATS
#undef ZERO_INTS
#undef ZERO_FLOATS
#undef LOAD_32_BYTES
#undef LOAD_16_WIDENED
#undef LOAD_8_HALVES
#undef NIBBLE
#undef TWO_COLUMNS
#undef DOT
#undef TO_FLOATS
#undef SPREAD
#undef MULTIPLY
#undef MULTIPLY_ADD
#undef STORE
