#include <stdio.h>

#include "core/option_internal.h"

static bool has_bounds(const mhp_option *option)
{
    return option->minimum != 0 || option->maximum != 0;
}

static mhp_status check_number(const mhp_option *option, double value, const char *path)
{
    char expected[MHP_OPTION_DESCRIPTION_MAX];

    if (!has_bounds(option) || (value >= option->minimum && value <= option->maximum)) {
        return MHP_OK;
    }
    mhp_option_describe(option, expected);
    return mhp_error_set(MHP_ERR_CONFIG, "%s is %g: expected %s", path, value, expected);
}

static bool has_name(const mhp_option *option, int64_t value)
{
    for (const mhp_option_choice *choice = option->choices; choice && choice->name; choice++) {
        if (choice->value == value) {
            return true;
        }
    }
    return false;
}

mhp_status mhp_options_check(const mhp_option *table, const void *parameters, const char *prefix)
{
    for (const mhp_option *option = table; option->key; option++) {
        const void *field = mhp_option_const_field(option, parameters);
        char path[MHP_OPTION_PATH_MAX];

        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] ? "." : "", option->key);
        if (option->type == MHP_OPTION_SECTION) {
            MHP_RETURN_IF_ERROR(mhp_options_check(option->section, field, path));
        } else if (option->type == MHP_OPTION_INT && !has_name(option, *(const int64_t *)field)) {
            MHP_RETURN_IF_ERROR(check_number(option, (double)*(const int64_t *)field, path));
        } else if (option->type == MHP_OPTION_FLOAT) {
            MHP_RETURN_IF_ERROR(check_number(option, *(const double *)field, path));
        }
    }
    return MHP_OK;
}
