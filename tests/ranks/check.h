/* Checks of programs that run on several ranks: what does not hold is printed with rank and place, and ends them all. `w` is in scope,
 * with `rank` and `comm`. */
#ifndef MHP_TESTS_RANKS_CHECK_H
#define MHP_TESTS_RANKS_CHECK_H

#include <stdio.h>

#include "comm/comm.h"

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "rank %d, %s:%d: %s does not hold (%s)\n", w->rank, __FILE__, __LINE__, \
                    #condition, mhp_error_text());                                                  \
            mhp_comm_abort(w->comm);                                                                \
        }                                                                                           \
    } while (0)

#define CHECK_OK(expression) CHECK((expression) == MHP_OK)

#endif
