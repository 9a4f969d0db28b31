#include "core/random.h"

#include <Random123/philox.h>
#include <assert.h>
#include <math.h>

#define TWO_PI 6.283185307179586476925286766559

enum { PERMUTE_ROUNDS = 8 };

/* Puts the bits that a permutation draws apart from those of every index. */
#define PERMUTE_MARK ((uint64_t)1 << 63)

mhp_u32x4 mhp_random_u32x4(uint64_t seed, uint64_t stream, uint64_t index)
{
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_ctr_t drawn = philox4x32(counter, key);

    return (mhp_u32x4){{drawn.v[0], drawn.v[1], drawn.v[2], drawn.v[3]}};
}

static uint64_t low_half(mhp_u32x4 drawn)
{
    return drawn.values[0] | (uint64_t)drawn.values[1] << 32;
}

static uint64_t high_half(mhp_u32x4 drawn)
{
    return drawn.values[2] | (uint64_t)drawn.values[3] << 32;
}

static double to_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t mhp_random_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    return low_half(mhp_random_u32x4(seed, stream, index));
}

double mhp_random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return to_unit(mhp_random_u64(seed, stream, index));
}

double mhp_random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    mhp_u32x4 drawn = mhp_random_u32x4(seed, stream, index);
    double radius = sqrt(-2.0 * log(1.0 - to_unit(low_half(drawn)))); /* 1 - u: never 0 */

    return radius * cos(TWO_PI * to_unit(high_half(drawn)));
}

static uint64_t ceiling_of_root(uint64_t value)
{
    uint64_t root = (uint64_t)sqrt((double)value);

    while (root * root >= value) {
        root--;
    }
    while (root * root < value) {
        root++;
    }
    return root;
}

/* Feistel rounds on the numbers of rows * columns, added modulo in place of exclusive or, so that
 * this barely exceeds the count. */
static uint64_t permute_grid(uint64_t seed, uint64_t stream, uint64_t value, uint64_t rows,
                             uint64_t columns)
{
    uint64_t row = value / columns, column = value % columns;

    for (uint64_t round = 0; round < PERMUTE_ROUNDS; round += 2) {
        uint64_t mark = PERMUTE_MARK | round << 32;

        row = (row + mhp_random_u64(seed, stream, mark | column) % rows) % rows;
        mark += (uint64_t)1 << 32;
        column = (column + mhp_random_u64(seed, stream, mark | row) % columns) % columns;
    }
    return row * columns + column;
}

uint64_t mhp_random_permute(uint64_t seed, uint64_t stream, uint64_t index, uint64_t count)
{
    uint64_t rows, columns;

    assert(count > 0 && count <= (uint64_t)1 << 62 && index < count);
    rows = ceiling_of_root(count);
    columns = (count + rows - 1) / rows;
    do { /* numbers beyond the count are walked through: they lie on cycles that lead back below it
          */
        index = permute_grid(seed, stream, index, rows, columns);
    } while (index >= count);
    return index;
}
