/* Figures of traces whose times are nanoseconds, rounded. Behind cmocka.h. */
#ifndef MHP_TESTS_UNIT_RUNTIME_NEAR_H
#define MHP_TESTS_UNIT_RUNTIME_NEAR_H

#include <math.h>

static inline void assert_near(double value, double expected, const char *what)
{
    if (fabs(value - expected) > 0.01) {
        fail_msg("%s is %.6f: expected %.6f", what, value, expected);
    }
}

#endif
