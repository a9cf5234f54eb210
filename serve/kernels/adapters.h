/* Low-rank deltas (LoRA, arXiv 2106.09685) on top of a product: y += weight * B (A x), for each token with its own adapters.
 *
 * The first half, A x, needs only the product's input and is computed while that is being rounded; the second is added to
 * each group of eight outputs as soon as the product has written it. So an adapter costs no further pass over the threads.
 */
#ifndef TUNECHAT_ADAPTERS_H
#define TUNECHAT_ADAPTERS_H

#include <stdint.h>

/* Outputs of the groups first_group to end_group - 1, which the hidden values first to first + rank - 1 change. Its B lies at
 * `offset`: for each group, for each hidden value, eight halves. `scale` is a power of two. */
typedef struct {
    long first_group, end_group, first, rank, offset;
    float scale;
} DeltaPart;

#define MOST_PARTS 3

/* What one adapter does to one matrix. `a` is NULL where it does nothing; else [rank, stride] halves, zero beyond the columns.
 * `gain` is NULL but for DoRA (arXiv 2402.09353), where row i of the product itself is multiplied with 1 + gain[i]. */
typedef struct {
    const uint16_t *a, *b;
    const float *gain;
    long rank, stride, parts;
    DeltaPart part[MOST_PARTS];
} Delta;

/* Which adapters change which tokens; engine/batch.py says how. `table` has, for each slot, the adapter's deltas by site;
 * `hidden` is memory for one site at a time, `width` floats for each of `tokens`. */
typedef struct {
    long groups;
    const int32_t *slots, *begins, *tokens;
    const float *weights;
    const Delta *const *table;
    float *hidden;
    long width;
} Adapters;

/* The hidden values of a site are computed in items of a few rows of A, for all tokens of a group. */
long delta_items(const Adapters *, long site);
void compute_hidden(const Adapters *, long site, const float *x, long columns, long item);

/* Adds what the adapters make of group `group` of the n outputs to all rows of y [m, n], which holds the product. */
void add_deltas(const Adapters *, long site, long group, long m, long n, const float *bias, float *y);

#endif
