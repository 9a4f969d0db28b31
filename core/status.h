/* Status codes and the error context that travels with them.
 * Functions that can fail return mhp_status: 0 is success, positive is "not finished", negative is an error.
 * An error also leaves one line of text in the calling thread; whoever crosses a thread copies it along. */
#ifndef MHP_CORE_STATUS_H
#define MHP_CORE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

#define MHP_STATUS_LIST(X)                                        \
    X(MHP_OK, 0, "ok")                                            \
    X(MHP_IN_PROGRESS, 1, "in progress")                          \
    X(MHP_ERR_INVALID, -1, "invalid argument")                    \
    X(MHP_ERR_CONFIG, -2, "wrong configuration")                  \
    X(MHP_ERR_LIMIT, -3, "limit exceeded")                        \
    X(MHP_ERR_NO_MEMORY, -4, "out of memory")                     \
    X(MHP_ERR_IO, -5, "input or output failed")                   \
    X(MHP_ERR_FORMAT, -6, "malformed file")                       \
    X(MHP_ERR_NOT_FOUND, -7, "not found")                         \
    X(MHP_ERR_UNSUPPORTED, -8, "not supported")                   \
    X(MHP_ERR_PLAN, -9, "wrong schedule")                         \
    X(MHP_ERR_NOT_FINITE, -10, "value not finite")                \
    X(MHP_ERR_PEER, -11, "another rank failed")                   \
    X(MHP_ERR_TIMEOUT, -12, "timed out")                          \
    X(MHP_ERR_COMM, -13, "communication failed")                  \
    X(MHP_ERR_DEVICE, -14, "device failed")                       \
    X(MHP_ERR_INTERNAL, -15, "internal error")

#define MHP_STATUS_ENUM(name, value, text) name = value,
typedef enum mhp_status { MHP_STATUS_LIST(MHP_STATUS_ENUM) } mhp_status;
#undef MHP_STATUS_ENUM

enum { MHP_ERROR_TEXT_MAX = 2048 };

/* The fixed words for a code; never NULL, static storage. */
const char *mhp_status_text(mhp_status status);

/* The calling thread's last error text; "" if none. Valid until the thread's next error. */
const char *mhp_error_text(void);

/* Replaces the calling thread's error text and returns `status`. */
mhp_status mhp_error_set(mhp_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
mhp_status mhp_error_vset(mhp_status status, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

/* Puts context ("stage 3: ") before the calling thread's error text; returns `status` unchanged, does nothing if it is not an error. */
mhp_status mhp_error_prefix(mhp_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* In a function with `mhp_status status` and one exit label. */
#define MHP_RAISE(label, code, ...)                  \
    do {                                             \
        status = mhp_error_set((code), __VA_ARGS__); \
        goto label;                                  \
    } while (0)

#define MHP_TRY(label, expression)  \
    do {                            \
        status = (expression);      \
        if (status < 0) goto label; \
    } while (0)

/* In a function that holds nothing to release. */
#define MHP_RETURN_IF_ERROR(expression)                \
    do {                                               \
        mhp_status status_of_call_ = (expression);     \
        if (status_of_call_ < 0) return status_of_call_; \
    } while (0)

#endif
