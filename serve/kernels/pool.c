/* A pool of threads that take parts of a loop as they come.
 *
 * On a machine that other processes use too, a thread can lose its core at any time. So a loop is over when its parts are
 * done, not when all threads have arrived: one that sleeps through a whole loop holds nobody up. (OpenMP's barriers wait for
 * every thread; with one busy neighbour on two cores a step took forty times as long.)
 */
#include "pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 64
#define PARTS_PER_THREAD 8
#define SPINS 2000

static struct {
    /* The loop under way; may be read only by who holds a part of it. */
    LoopBody body;
    const void *context;
    long count, part;
    /* Number of the loop in the upper half, parts not yet taken in the lower. */
    _Atomic uint64_t open;
    _Atomic long done;

    _Atomic int sleepers;
    int started, wanted;
    pthread_mutex_t busy, sleep;
    pthread_cond_t wake;
} pool = {.wanted = 1, .busy = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* Takes a part of the loop and does it; 0 when none is left. Holding a part keeps the loop from ending. */
static int work(void) {
    uint64_t open = atomic_load(&pool.open);
    do {
        if ((uint32_t)open == 0) return 0;
    } while (!atomic_compare_exchange_weak(&pool.open, &open, open - 1));
    long begin = ((long)(uint32_t)open - 1) * pool.part, end = begin + pool.part;
    pool.body(pool.context, begin, end < pool.count ? end : pool.count);
    atomic_fetch_add(&pool.done, 1);
    return 1;
}

static void *serve(void *index) {
    long own = (long)index, spins = 0;
    for (;;) {
        if (own < pool.wanted && work()) {
            spins = 0;
        } else if (++spins < SPINS) {
            _mm_pause();
        } else {
            pthread_mutex_lock(&pool.sleep);
            atomic_fetch_add(&pool.sleepers, 1);
            while (own >= pool.wanted || (uint32_t)atomic_load(&pool.open) == 0) pthread_cond_wait(&pool.wake, &pool.sleep);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.sleep);
            spins = 0;
        }
    }
    return NULL;
}

/* A forked child has none of the threads. */
static void forget_threads(void) {
    pool.started = 0;
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.open, 0);
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

static void start_threads(void) {
    static int registered = 0;
    if (!registered) registered = pthread_atfork(NULL, NULL, forget_threads) == 0;
    while (pool.started < pool.wanted - 1) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(long)(pool.started + 1))) break;
        pthread_detach(thread);
        pool.started++;
    }
}

void set_threads(int count) {
    pthread_mutex_lock(&pool.busy);
    pool.wanted = count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count;
    pthread_mutex_unlock(&pool.busy);
}

void run_parallel(LoopBody body, const void *context, long count) {
    if (count < 1) return;
    /* A caller that finds the pool in use by another thread does its loop alone. */
    if (count == 1 || pool.wanted == 1 || pthread_mutex_trylock(&pool.busy)) {
        body(context, 0, count);
        return;
    }
    start_threads();
    long parts = (long)PARTS_PER_THREAD * pool.wanted;
    pool.body = body;
    pool.context = context;
    pool.count = count;
    pool.part = (count + parts - 1) / parts;
    parts = (count + pool.part - 1) / pool.part;
    atomic_store(&pool.done, 0);
    uint64_t number = (atomic_load(&pool.open) >> 32) + 1;
    atomic_store(&pool.open, number << 32 | (uint64_t)parts);
    if (atomic_load(&pool.sleepers)) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
    while (work()) continue;
    for (long spins = 0; atomic_load(&pool.done) != parts; spins++) {
        if (spins < SPINS) _mm_pause();
        else sched_yield();
    }
    pthread_mutex_unlock(&pool.busy);
}
