/* Log lines. The library never prints: lines go to the sink that the program has set, and nowhere
 * without one. */
#ifndef MHP_CORE_LOG_H
#define MHP_CORE_LOG_H

#include <stdbool.h>

typedef enum mhp_log_level {
    MHP_LOG_ERROR,
    MHP_LOG_WARN,
    MHP_LOG_INFO,
    MHP_LOG_DEBUG,
} mhp_log_level;

enum { MHP_LOG_TEXT_MAX = 2048 };

/* Takes one line without its newline, valid during the call. Calls never overlap, whichever threads
 * log; a sink must not log. Rank and time are the sink's to add. */
typedef void (*mhp_log_sink_fn)(void *context, mhp_log_level level, const char *text);

/* Sends lines of `level` and more urgent ones to `sink`; NULL drops all. When it returns, the sink
 * before it is not running and is not called again. Any thread. */
void mhp_log_set_sink(mhp_log_sink_fn sink, void *context, mhp_log_level level);

/* Whether a line of that level would reach a sink: spares the work of making one. */
bool mhp_log_enabled(mhp_log_level level);

/* "error", "warn", "info", "debug"; static storage. */
const char *mhp_log_level_text(mhp_log_level level);

/* One line, cut at MHP_LOG_TEXT_MAX - 1 bytes. Any thread. The calling thread's error text and
 * errno stay. */
void mhp_log(mhp_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define mhp_log_error(...) mhp_log(MHP_LOG_ERROR, __VA_ARGS__)
#define mhp_log_warn(...)  mhp_log(MHP_LOG_WARN, __VA_ARGS__)
#define mhp_log_info(...)  mhp_log(MHP_LOG_INFO, __VA_ARGS__)
#define mhp_log_debug(...) mhp_log(MHP_LOG_DEBUG, __VA_ARGS__)

#endif
