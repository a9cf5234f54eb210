/* Low-rank deltas (LoRA, arXiv 2106.09685) on top of a product: y += weight * B (A x), for each token with its own adapters.
 *
 * The first half, A x, needs only the product's input and is computed while that is being rounded; the second is added to a
 * span of outputs as soon as the product has written it. So an adapter costs no further pass over the threads.
 */
#ifndef TUNECHAT_ADAPTERS_H
#define TUNECHAT_ADAPTERS_H

#include <stdint.h>

/* Outputs are taken in blocks of so many. */
#define BLOCK_ROWS 16
#define MOST_PARTS 3

/* Outputs of the blocks first_block to end_block - 1, which the hidden values first to first + rank - 1 change. Its B lies at
 * `offset`: for each block, for each hidden value, sixteen halves. `scale` is a power of two. */
typedef struct {
    long first_block, end_block, first, rank, offset;
    float scale;
} DeltaPart;

/* What one adapter does to one matrix; all zero where it does nothing. `a` holds `rank` rows of `stride` halves, zero beyond
 * the matrix' columns: four rows together, sixteen columns of each after the other, the last rows filled up with zero. `gain`
 * is NULL but for DoRA (arXiv 2402.09353), where row i of the product itself is multiplied with 1 + gain[i]; it is as long as
 * all blocks. */
typedef struct {
    const uint16_t *a, *b;
    const float *gain;
    long rank, stride, parts;
    DeltaPart part[MOST_PARTS];
} Delta;

/* Which adapters change which tokens; engine/batch.py says how. `table` has, for each slot, the adapter's deltas by site;
 * `hidden` is memory for one site at a time, `width` floats for each of `tokens`, a multiple of four. */
typedef struct {
    long groups;
    const int32_t *slots, *begins, *tokens;
    const float *weights;
    const Delta *const *table;
    float *hidden;
    long width;
} Adapters;

/* The hidden values of a site are computed in items of four rows of A, for all tokens of a group. */
long delta_items(const Adapters *, long site);
void compute_hidden(const Adapters *, long site, const float *x, long columns, long item);

/* Adds what the adapters make of the blocks `first` to `end` - 1 of outputs to all rows of y [m, n], which holds the product. */
void add_deltas(const Adapters *, long site, long first, long end, long m, long n, const float *bias, float *y);

/* Whether AVX-512 may be used. */
int uses_vnni(void);

/* The memory that `add_deltas` will read for one block of outputs, to be asked for while there is arithmetic to do. */
#define MOST_STRETCHES 64
typedef struct {
    long count;
    const char *begin[MOST_STRETCHES], *end[MOST_STRETCHES];
} Stretches;
void find_stretches(const Adapters *, long site, long block, Stretches *);

#endif
