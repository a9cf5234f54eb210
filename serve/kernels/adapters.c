#include "adapters.h"

#include "common.h"

#define GROUP 8
#define ROWS 4
#define TOKENS 4

static const Delta *delta_of(const Adapters *a, long group, long site) { return &a->table[a->slots[group]][site]; }

static long items_of(const Delta *d) { return d->a ? (d->rank + ROWS - 1) / ROWS : 0; }

long delta_items(const Adapters *a, long site) {
    long items = 0;
    for (long g = 0; g < a->groups; g++) items += items_of(delta_of(a, g, site));
    return items;
}

/* Each sum runs along the columns in one vector, then over its lanes: the same for any number of tokens. */
static inline __attribute__((always_inline)) void hidden_tile(const int rows, const int tokens, const uint16_t *a, long stride,
                                                              const float *const *x, long columns, float *const *h) {
    __m256 sum[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_setzero_ps();
    long i = 0;
    for (; i + 8 <= columns; i += 8) {
        __m256 v[2];
        for (int t = 0; t < tokens; t++) v[t] = _mm256_loadu_ps(x[t] + i);
        for (int r = 0; r < rows; r++) {
            __m256 w = load8(FLOAT16, a, r * stride + i);
            for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_fmadd_ps(w, v[t], sum[r][t]);
        }
    }
    if (i < columns) {
        const __m256i lanes = first_lanes(columns - i);
        for (int r = 0; r < rows; r++) {
            __m256 w = load8(FLOAT16, a, r * stride + i);
            for (int t = 0; t < tokens; t++) sum[r][t] = _mm256_fmadd_ps(w, _mm256_maskload_ps(x[t] + i, lanes), sum[r][t]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) h[t][r] = sum8(sum[r][t]);
}

void compute_hidden(const Adapters *a, long site, const float *x, long columns, long item) {
    long g = 0;
    for (long items; (items = items_of(delta_of(a, g, site))) <= item; g++) item -= items;
    const Delta *d = delta_of(a, g, site);
    const long first = item * ROWS, rows = d->rank - first < ROWS ? d->rank - first : ROWS, end = a->begins[g + 1];
    const uint16_t *weights = d->a + first * d->stride;
    for (long u = a->begins[g]; u < end;) {
        const int two = u + 2 <= end;
        const float *from[2] = {x + a->tokens[u] * columns, two ? x + a->tokens[u + 1] * columns : NULL};
        float *to[2] = {a->hidden + u * a->width + first, a->hidden + (u + 1) * a->width + first};
        if (rows == ROWS && two) hidden_tile(ROWS, 2, weights, d->stride, from, columns, to);
        else if (rows == ROWS) hidden_tile(ROWS, 1, weights, d->stride, from, columns, to);
        else
            for (long r = 0; r < rows; r++, to[0]++, to[1]++) {
                if (two) hidden_tile(1, 2, weights + r * d->stride, d->stride, from, columns, to);
                else hidden_tile(1, 1, weights + r * d->stride, d->stride, from, columns, to);
            }
        u += two ? 2 : 1;
    }
}

typedef struct {
    const float *bias, *base;
    float *y;
    long n, column;
    __m256i lanes;
} Outputs;

/* y += weight * (scale * B h + gain * base) for `tokens` uses from u on. B is NULL where only the gain acts. */
static inline __attribute__((always_inline)) void expand_tile(const int tokens, const Adapters *a, const Outputs *o, long u,
                                                              const uint16_t *b, long first, long rank, float scale,
                                                              const float *gain) {
    __m256 sum[TOKENS];
    for (int t = 0; t < tokens; t++) sum[t] = _mm256_setzero_ps();
    for (long j = 0; j < rank; j++) {
        __m256 w = load8(FLOAT16, b, GROUP * j);
        for (int t = 0; t < tokens; t++)
            sum[t] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(a->hidden + (u + t) * a->width + first + j), sum[t]);
    }
    for (int t = 0; t < tokens; t++) {
        float *y = o->y + a->tokens[u + t] * o->n + o->column;
        __m256 delta = _mm256_mul_ps(sum[t], _mm256_set1_ps(scale));
        if (gain) delta = _mm256_fmadd_ps(_mm256_loadu_ps(gain), _mm256_loadu_ps(o->base + a->tokens[u + t] * GROUP), delta);
        delta = _mm256_fmadd_ps(delta, _mm256_set1_ps(a->weights[u + t]), _mm256_maskload_ps(y, o->lanes));
        _mm256_maskstore_ps(y, o->lanes, delta);
    }
}

/* The group's outputs as the product alone gives them, [m, 8]: what DoRA's gain multiplies. */
static const float *copy_base(const Outputs *o, long m) {
    float *base = scratch((size_t)m * GROUP * sizeof(float));
    __m256 bias = o->bias ? _mm256_maskload_ps(o->bias + o->column, o->lanes) : _mm256_setzero_ps();
    for (long r = 0; r < m; r++)
        _mm256_storeu_ps(base + r * GROUP, _mm256_sub_ps(_mm256_maskload_ps(o->y + r * o->n + o->column, o->lanes), bias));
    return base;
}

void add_deltas(const Adapters *a, long site, long group, long m, long n, const float *bias, float *y) {
    const long column = group * GROUP;
    Outputs o = {bias, NULL, y, n, column, first_lanes(n - column)};
    for (long g = 0; g < a->groups && !o.base; g++)
        if (delta_of(a, g, site)->gain) o.base = copy_base(&o, m);
    for (long g = 0; g < a->groups; g++) {
        const Delta *d = delta_of(a, g, site);
        if (!d->a) continue;
        for (const DeltaPart *p = d->part; p < d->part + d->parts; p++) {
            if (group < p->first_group || group >= p->end_group) continue;
            const uint16_t *b = d->b + p->offset + (group - p->first_group) * p->rank * GROUP;
            const float *gain = d->gain ? d->gain + column : NULL;
            long u = a->begins[g];
            for (; u + TOKENS <= a->begins[g + 1]; u += TOKENS) expand_tile(TOKENS, a, &o, u, b, p->first, p->rank, p->scale, gain);
            for (; u < a->begins[g + 1]; u++) expand_tile(1, a, &o, u, b, p->first, p->rank, p->scale, gain);
        }
    }
}
