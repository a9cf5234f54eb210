/* Both halves of a delta, written once and compiled for each width of vectors (sixteen256.h, sixteen512.h).
 *
 * A hidden value is the sum over columns of sixteen lanes, then of the lanes; what is added to an output is the sum over hidden
 * values, in order. So the bits depend neither on the width nor on how many tokens or rows are worked on at once.
 */

/* Four hidden values of `tokens` tokens. */
static inline __attribute__((always_inline)) void NAMED(hidden_tile)(const int tokens, const Adapters *a, const uint16_t *w,
                                                                     const float *x, long columns, long u, long first) {
    SIXTEEN sum[ROWS][HIDDEN_TOKENS];
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = ZERO();
    for (long i = 0; i < columns; i += LANES, w += ROWS * LANES) {
        _mm_prefetch(w + AHEAD, _MM_HINT_T0);
        _mm_prefetch(w + AHEAD + 32, _MM_HINT_T0);
        SIXTEEN v[HIDDEN_TOKENS];
        for (int t = 0; t < tokens; t++) {
            const float *from = x + a->tokens[u + t] * columns + i;
            v[t] = i + LANES <= columns ? LOAD(from) : LOAD_FIRST(from, columns - i);
        }
        for (int r = 0; r < ROWS; r++) {
            SIXTEEN row = LOAD_HALVES(w + LANES * r);
            for (int t = 0; t < tokens; t++) sum[r][t] = MULTIPLY_ADD(row, v[t], sum[r][t]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < ROWS; r++) a->hidden[(u + t) * a->width + first + r] = SUM(sum[r][t]);
}

static void NAMED(compute_item)(const Adapters *a, const Delta *d, long group, const float *x, long columns, long item) {
    const uint16_t *weights = d->a + item * ROWS * d->stride;
    const long end = a->begins[group + 1];
    long u = a->begins[group];
    for (; HIDDEN_TOKENS > 1 && u + HIDDEN_TOKENS <= end; u += HIDDEN_TOKENS)
        NAMED(hidden_tile)(HIDDEN_TOKENS, a, weights, x, columns, u, item * ROWS);
    for (; u < end; u++) NAMED(hidden_tile)(1, a, weights, x, columns, u, item * ROWS);
}

/* y += weight * (scale * B h + gain * base) for `blocks` blocks of outputs and `tokens` uses from u on. */
static inline __attribute__((always_inline)) void NAMED(expand_tile)(const int blocks, const int tokens, const Adapters *a,
                                                                     const Span *s, const Delta *d, const DeltaPart *p,
                                                                     long block, long u) {
    const uint16_t *b = d->b + p->offset + (block - p->first_block) * p->rank * LANES;
    SIXTEEN sum[2][4];
    for (int c = 0; c < blocks; c++)
        for (int t = 0; t < tokens; t++) sum[c][t] = ZERO();
    for (long j = 0; j < p->rank; j++) {
        SIXTEEN w[2];
        for (int c = 0; c < blocks; c++) w[c] = LOAD_HALVES(b + (c * p->rank + j) * LANES);
        for (int t = 0; t < tokens; t++) {
            SIXTEEN h = SPREAD(a->hidden[(u + t) * a->width + p->first + j]);
            for (int c = 0; c < blocks; c++) sum[c][t] = MULTIPLY_ADD(w[c], h, sum[c][t]);
        }
    }
    for (int t = 0; t < tokens; t++) {
        const long token = a->tokens[u + t];
        const SIXTEEN scale = SPREAD(p->scale), weight = SPREAD(a->weights[u + t]);
        for (int c = 0; c < blocks; c++) {
            const long column = (block + c) * LANES, count = s->n - column;
            float *y = s->y + token * s->n + column;
            SIXTEEN delta = MULTIPLY(sum[c][t], scale);
            if (d->gain) {
                const float *base = s->base + (token * s->count + block + c - s->first) * LANES;
                delta = MULTIPLY_ADD(LOAD(d->gain + column), LOAD(base), delta);
            }
            if (count >= LANES) STORE(y, MULTIPLY_ADD(delta, weight, LOAD(y)));
            else STORE_FIRST(y, count, MULTIPLY_ADD(delta, weight, LOAD_FIRST(y, count)));
        }
    }
}

/* One part of one adapter, for the blocks that it shares with the span. A single token takes more blocks at once, so that there
 * are sums enough to hide the latency of each. */
static void NAMED(expand_part)(const Adapters *a, const Span *s, const Delta *d, const DeltaPart *p, long begin, long end) {
    long block = p->first_block > s->first ? p->first_block : s->first;
    const long last = s->first + s->count < p->end_block ? s->first + s->count : p->end_block, fours = begin + (end - begin) / 4 * 4;
    for (; block + 2 <= last; block += 2) {
        for (long u = begin; u < fours; u += 4)
            for (int c = 0; c < 2; c += EXPAND_BLOCKS) NAMED(expand_tile)(EXPAND_BLOCKS, 4, a, s, d, p, block + c, u);
        for (long u = fours; u < end; u++) NAMED(expand_tile)(2, 1, a, s, d, p, block, u);
    }
    for (long u = begin; block < last && u < end; u++) NAMED(expand_tile)(1, 1, a, s, d, p, block, u);
}

/* What DoRA's gain multiplies. */
static void NAMED(copy_base)(const Span *s, float *to) {
    for (long r = 0; r < s->m; r++)
        for (long column = s->first * LANES; column < (s->first + s->count) * LANES; column += LANES, to += LANES) {
            const long count = s->n - column < LANES ? s->n - column : LANES;
            SIXTEEN y = LOAD_FIRST(s->y + r * s->n + column, count);
            STORE(to, s->bias ? SUBTRACT(y, LOAD_FIRST(s->bias + column, count)) : y);
        }
}

static void NAMED(add_span)(const Adapters *a, long site, Span *s) {
    for (long g = 0; g < a->groups && !s->base; g++)
        if (delta_of(a, g, site)->gain) {
            float *base = scratch((size_t)s->m * s->count * LANES * sizeof(float));
            NAMED(copy_base)(s, base);
            s->base = base;
        }
    for (long g = 0; g < a->groups; g++) {
        const Delta *d = delta_of(a, g, site);
        for (const DeltaPart *p = d->part; p < d->part + d->parts; p++)
            NAMED(expand_part)(a, s, d, p, a->begins[g], a->begins[g + 1]);
    }
}

#undef NAMED
#undef HIDDEN_TOKENS
#undef EXPAND_BLOCKS
#undef SIXTEEN
#undef BOTH
#undef ZERO
#undef SPREAD
#undef LOAD
#undef LOAD_HALVES
#undef LOAD_FIRST
#undef STORE
#undef STORE_FIRST
#undef MULTIPLY
#undef SUBTRACT
#undef MULTIPLY_ADD
#undef SUM
