#include "core/energy.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/device.h"
#include "core/energy_internal.h"
#include "core/memory.h"

mhp_status mhp_energy_create(const energy_source *source, mhp_energy_meter **meter_out)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(meter_out, 1, sizeof **meter_out));
    (*meter_out)->source = source;
    return MHP_OK;
}

void mhp_energy_fail(mhp_energy_meter *meter, const char *format, ...)
{
    va_list arguments;

    if (meter->reason[0] != '\0') {
        return;
    }
    va_start(arguments, format);
    vsnprintf(meter->reason, sizeof meter->reason, format, arguments);
    va_end(arguments);
}

const char *mhp_energy_reason(const mhp_energy_meter *meter)
{
    return meter->reason;
}

void mhp_energy_close(mhp_energy_meter *meter)
{
    if (!meter) {
        return;
    }
    meter->source->close(meter);
    for (int i = 0; i < meter->count; i++) {
        mhp_free(meter->counters[i].name);
    }
    mhp_free(meter);
}

/* Joules between two good readings, `seconds` apart. A counter that goes round and one that went backwards look alike, but for how much
 * would have been consumed meanwhile. */
static double difference(mhp_energy_meter *meter, const energy_counter *counter, double before_j, double seconds)
{
    double joules = counter->energy_j - before_j;
    bool is_round = joules < 0 && counter->range_j > 0;

    if (counter->range_j > 0 && seconds * MHP_ENERGY_PACKAGE_WATTS_MAX > counter->range_j) {
        mhp_energy_fail(meter, "%s goes round at %.0f J and was not read for %.0f s: expected less than %.0f s", counter->name,
                        counter->range_j, seconds, counter->range_j / MHP_ENERGY_PACKAGE_WATTS_MAX);
        return NAN;
    }
    joules += is_round ? counter->range_j : 0;
    if (joules < 0 || (is_round && joules > MHP_ENERGY_PACKAGE_WATTS_MAX * (seconds + 1))) {
        mhp_energy_fail(meter, "%s went backwards, from %.6f to %.6f J", counter->name, before_j, counter->energy_j);
        return NAN;
    }
    return joules;
}

static double read_counter(mhp_energy_meter *meter, energy_counter *counter, double seconds)
{
    double before_j = counter->energy_j;
    bool was_known = counter->known;
    mhp_status status = meter->source->sample(meter, counter, &counter->energy_j);

    counter->known = status == MHP_OK;
    if (!counter->known) {
        mhp_energy_fail(meter, "%s", mhp_error_text());
    }
    return counter->known && was_known ? difference(meter, counter, before_j, seconds) : NAN;
}

double mhp_energy_read(mhp_energy_meter *meter, uint64_t now_ns)
{
    double seconds = (double)(now_ns - meter->read_ns) * 1e-9;
    double sum = meter->count > 0 ? 0 : NAN;

    for (int i = 0; i < meter->count; i++) {
        sum += read_counter(meter, &meter->counters[i], seconds);
    }
    meter->read_ns = now_ns;
    return sum;
}

void mhp_energy_start(mhp_energy_meter *meter)
{
    (void)mhp_energy_read(meter, mhp_time_ns());
}
