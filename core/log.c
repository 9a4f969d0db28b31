#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static mhp_log_sink_fn sink_function; /* under sink_lock */
static void *sink_context;            /* under sink_lock */
static atomic_int sink_level = -1; /* -1: no sink; read without the lock so that silence is cheap */

void mhp_log_set_sink(mhp_log_sink_fn sink, void *context, mhp_log_level level)
{
    pthread_mutex_lock(&sink_lock);
    sink_function = sink;
    sink_context = context;
    atomic_store(&sink_level, sink ? (int)level : -1);
    pthread_mutex_unlock(&sink_lock);
}

bool mhp_log_enabled(mhp_log_level level)
{
    return (int)level <= atomic_load(&sink_level);
}

const char *mhp_log_level_text(mhp_log_level level)
{
    static const char *const texts[] = {"error", "warn", "info", "debug"};

    assert(level >= MHP_LOG_ERROR && level <= MHP_LOG_DEBUG);
    return texts[level];
}

void mhp_log(mhp_log_level level, const char *format, ...)
{
    char text[MHP_LOG_TEXT_MAX];
    int saved_errno = errno;
    va_list arguments;

    if (!mhp_log_enabled(level)) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&sink_lock);
    if (sink_function && mhp_log_enabled(level)) {
        sink_function(sink_context, level, text);
    }
    pthread_mutex_unlock(&sink_lock);
    errno = saved_errno;
}
