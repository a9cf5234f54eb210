/* Runs a loop on several threads. */
#ifndef TUNECHAT_POOL_H
#define TUNECHAT_POOL_H

/* Does items begin to end - 1 of the loop whose data `context` points to. */
typedef void (*LoopBody)(const void *context, long begin, long end);

/* Runs `body` over items 0 to count - 1, in parts, on the caller and on the pool's threads; returns when all are done. */
void run_parallel(LoopBody body, const void *context, long count);

/* How many threads work, the caller among them. At most 64. */
void set_threads(int count);

#endif
