/* What the files of check_report share. */
#ifndef MHP_TESTS_REPORT_CHECK_REPORT_H
#define MHP_TESTS_REPORT_CHECK_REPORT_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "check_report: " __VA_ARGS__);                                                             \
            fprintf(stderr, " (%s)\n", #condition);                                                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline double number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    CHECK(json_is_number(value), "%s is no number", key);
    return json_number_value(value);
}

/* That "filled message slots" of a trace's events are what its messages and groups say; the number of changes. */
size_t check_slots(const json_t *events);

#endif
