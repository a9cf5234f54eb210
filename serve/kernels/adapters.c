#include "adapters.h"

#include "common.h"

#define LANES BLOCK_ROWS
#define ROWS 4
/* How far before it is used a line of A is asked for, in halves: its stretches are too short for the processor to see where
 * they go. */
#define AHEAD 1024

/* The outputs of some blocks for all rows: y [m, n]. `base` has them as the product alone gives them, [m, count * 16]. */
typedef struct {
    const float *bias, *base;
    float *y;
    long m, n, first, count;
} Span;

static const Delta *delta_of(const Adapters *a, long group, long site) { return &a->table[a->slots[group]][site]; }

static long items_of(const Delta *d) { return (d->rank + ROWS - 1) / ROWS; }

#include "sixteen256.h"
#include "deltas.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl")
#include "sixteen512.h"
#include "deltas.h"
#pragma GCC pop_options

long delta_items(const Adapters *a, long site) {
    long items = 0;
    for (long g = 0; g < a->groups; g++) items += items_of(delta_of(a, g, site));
    return items;
}

void compute_hidden(const Adapters *a, long site, const float *x, long columns, long item) {
    long g = 0;
    for (long items; (items = items_of(delta_of(a, g, site))) <= item; g++) item -= items;
    if (uses_vnni()) compute_item_avx512(a, delta_of(a, g, site), g, x, columns, item);
    else compute_item_avx2(a, delta_of(a, g, site), g, x, columns, item);
}

void add_deltas(const Adapters *a, long site, long first, long end, long m, long n, const float *bias, float *y) {
    Span s = {bias, NULL, y, m, n, first, end - first};
    if (uses_vnni()) add_span_avx512(a, site, &s);
    else add_span_avx2(a, site, &s);
}

void find_stretches(const Adapters *a, long site, long block, Stretches *found) {
    found->count = 0;
    for (long g = 0; g < a->groups; g++) {
        const Delta *d = delta_of(a, g, site);
        for (const DeltaPart *p = d->part; p < d->part + d->parts; p++) {
            if (block < p->first_block || block >= p->end_block || found->count == MOST_STRETCHES) continue;
            const uint16_t *b = d->b + p->offset + (block - p->first_block) * p->rank * LANES;
            found->begin[found->count] = (const char *)b;
            found->end[found->count++] = (const char *)(b + p->rank * LANES);
        }
    }
}
