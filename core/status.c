#include "core/status.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[MHP_ERROR_TEXT_MAX];

const char *mhp_status_text(mhp_status status)
{
#define MHP_STATUS_CASE(name, value, text) \
    case name: return text;
    switch (status) { MHP_STATUS_LIST(MHP_STATUS_CASE) }
#undef MHP_STATUS_CASE
    return "unknown status";
}

const char *mhp_error_text(void)
{
    return error_text;
}

mhp_status mhp_error_vset(mhp_status status, const char *format, va_list arguments)
{
    char text[MHP_ERROR_TEXT_MAX];              /* the arguments may point into error_text */

    vsnprintf(text, sizeof text, format, arguments);
    memcpy(error_text, text, sizeof text);
    return status;
}

mhp_status mhp_error_set(mhp_status status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    mhp_error_vset(status, format, arguments);
    va_end(arguments);
    return status;
}

mhp_status mhp_error_prefix(mhp_status status, const char *format, ...)
{
    char text[MHP_ERROR_TEXT_MAX];
    va_list arguments;
    int length;

    if (status >= 0) {
        return status;
    }
    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof text) {
        snprintf(text + length, sizeof text - (size_t)length, "%s", error_text);
    }
    memcpy(error_text, text, sizeof text);
    return status;
}
