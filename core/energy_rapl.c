/* RAPL: the Linux kernel's powercap folder has a zone for every package, with a counter in microjoules that goes round. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/energy_internal.h"
#include "core/folder.h"
#include "core/memory.h"

enum { NUMBER_TEXT_MAX = 32 };

/* Parses a whole file that holds one number. */
static mhp_status parse_microjoules(const char *path, char *text, ssize_t length, double *energy_j)
{
    char *end = text;
    unsigned long long value;

    text[length] = '\0';
    errno = 0;
    value = strtoull(text, &end, 10);
    if (end == text || text[0] == '-' || errno != 0 || (*end != '\n' && *end != '\0')) {
        text[strcspn(text, "\n")] = '\0';
        return mhp_error_set(MHP_ERR_FORMAT, "%s holds \"%s\": expected microjoules", path, text);
    }
    *energy_j = (double)value * 1e-6;
    return MHP_OK;
}

static mhp_status sample(const mhp_energy_meter *meter, const energy_counter *counter, double *energy_j)
{
    char text[NUMBER_TEXT_MAX];
    ssize_t length = pread(counter->file, text, sizeof text - 1, 0);

    (void)meter;
    if (length < 0) {
        return mhp_error_set(MHP_ERR_IO, "%s: %s", counter->name, strerror(errno));
    }
    return parse_microjoules(counter->name, text, length, energy_j);
}

static void close_files(mhp_energy_meter *meter)
{
    for (int i = 0; i < meter->count; i++) {
        if (meter->counters[i].file >= 0) {
            close(meter->counters[i].file);
        }
    }
}

static const energy_source rapl = {sample, close_files};

/* "intel-rapl:0", not its parts "intel-rapl:0:1", nor the same package again as "intel-rapl-mmio:0". */
static bool is_zone(const char *name)
{
    static const char prefix[] = "intel-rapl:";

    return strncmp(name, prefix, sizeof prefix - 1) == 0 && !strchr(name + sizeof prefix - 1, ':');
}

/* A small file of a zone; an empty text if it cannot be read. (The size that sysfs tells of a file is not that of its text.) */
static void read_text(const char *folder, const char *zone, const char *name, char *text, size_t size)
{
    char *path = NULL;
    int file = mhp_asprintf(&path, "%s/%s/%s", folder, zone, name) == MHP_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t length = file >= 0 ? read(file, text, size - 1) : 0;

    text[length > 0 ? length : 0] = '\0';
    if (file >= 0) {
        close(file);
    }
    mhp_free(path);
}

/* Where the counter goes round; 0 if that is not said. */
static double range_of(const char *folder, const char *zone)
{
    char text[NUMBER_TEXT_MAX];
    double range_j;

    read_text(folder, zone, "max_energy_range_uj", text, sizeof text);
    return parse_microjoules(zone, text, (ssize_t)strlen(text), &range_j) == MHP_OK ? range_j : 0;
}

static mhp_status add_zone(mhp_energy_meter *meter, const char *folder, const char *zone)
{
    energy_counter *counter = &meter->counters[meter->count];
    char kind[NUMBER_TEXT_MAX];

    read_text(folder, zone, "name", kind, sizeof kind);
    if (strncmp(kind, "package", strlen("package")) != 0) {     /* "psys" is the whole machine, and counts packages again */
        return MHP_OK;
    }
    if (meter->count == MHP_ENERGY_PACKAGES_MAX) {
        mhp_energy_fail(meter, "%s has more than %d packages", folder, MHP_ENERGY_PACKAGES_MAX);
        return MHP_OK;
    }
    counter->file = -1;
    MHP_RETURN_IF_ERROR(mhp_asprintf(&counter->name, "%s/%s/energy_uj", folder, zone));
    meter->count++;
    counter->range_j = range_of(folder, zone);
    counter->file = open(counter->name, O_RDONLY | O_CLOEXEC);
    if (counter->file < 0) {
        mhp_energy_fail(meter, "%s: %s", counter->name, strerror(errno));
    }
    return MHP_OK;
}

static mhp_status add_zones(mhp_energy_meter *meter, const char *folder)
{
    mhp_status status = MHP_OK;
    mhp_folder_list list = {0};

    if (!mhp_file_exists(folder)) {
        mhp_energy_fail(meter, "%s is not there", folder);
        return MHP_OK;
    }
    if (mhp_folder_read(folder, &list) < 0) {
        mhp_energy_fail(meter, "%s", mhp_error_text());
    }
    for (size_t i = 0; i < list.count; i++) {
        if (is_zone(list.names[i])) {
            MHP_TRY(out, add_zone(meter, folder, list.names[i]));
        }
    }
    if (meter->count == 0) {
        mhp_energy_fail(meter, "%s has no zone of a package", folder);
    }
out:
    mhp_folder_release(&list);
    return status;
}

mhp_status mhp_energy_open_packages(const char *folder, mhp_energy_meter **meter_out)
{
    mhp_status status = MHP_OK;
    mhp_energy_meter *meter = NULL;

    MHP_TRY(out, mhp_energy_create(&rapl, &meter));
    MHP_TRY(out, add_zones(meter, folder));
    mhp_energy_start(meter);
    *meter_out = meter;
    meter = NULL;
out:
    mhp_energy_close(meter);
    return status;
}
