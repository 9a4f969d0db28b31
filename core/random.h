/* Random numbers as pure functions of (seed, stream, index): no state, so that a number does not
 * depend on who asks, in which order, or on how many ranks there are. Philox4x32 with 10 rounds
 * (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 *
 * A stream is what one purpose draws from; streams of one seed, and seeds, are independent. All
 * functions but mhp_random_permute read the same 128 bits of an index, so one index serves one
 * purpose; indices stay below 2^63. Any thread. */
#ifndef MHP_CORE_RANDOM_H
#define MHP_CORE_RANDOM_H

#include <stdint.h>

typedef struct mhp_u32x4 {
    uint32_t values[4];
} mhp_u32x4;

/* 128 random bits. */
mhp_u32x4 mhp_random_u32x4(uint64_t seed, uint64_t stream, uint64_t index);

/* 64 random bits. */
uint64_t mhp_random_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* Uniform in [0, 1), a multiple of 2^-53. */
double mhp_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Normal with mean 0 and deviation 1 (Box and Muller 1958); |x| < 8.6. Bit-equal wherever log, sqrt
 * and cos of libm are. */
double mhp_random_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* The place of `index` in a random order of 0 ... count - 1: for every (seed, stream, count) a
 * permutation, in constant memory and, expected, constant time. 0 < count <= 2^62, index < count.
 */
uint64_t mhp_random_permute(uint64_t seed, uint64_t stream, uint64_t index, uint64_t count);

#endif
