#include "runtime/prometheus.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/memory.h"

struct mhp_prometheus {
    char *path, *next_path;         /* the file, and the one that replaces it */
    char *label;                    /* run="...", escaped */
    int64_t total;
    mhp_scalar held_out;            /* the last one, for the steps behind it; metric NULL: none yet */
};

/* A label's value: backslash, quote and newline are escaped. */
static mhp_status escape(const char *run, char **label_out)
{
    static const char name[] = "run=\"";
    char *to;

    MHP_RETURN_IF_ERROR(mhp_calloc(label_out, 2 * strlen(run) + sizeof name + 2, 1));
    to = stpcpy(*label_out, name);
    for (const char *from = run; *from; from++) {
        if (*from == '\\' || *from == '"' || *from == '\n') {
            *to++ = '\\';
        }
        *to++ = *from == '\n' ? 'n' : *from;
    }
    *to = '"';
    return MHP_OK;
}

mhp_status mhp_prometheus_open(const char *path, const char *run, int64_t done, int64_t total, mhp_prometheus **prometheus_out)
{
    mhp_status status = MHP_OK;
    mhp_prometheus *prometheus = NULL;

    MHP_TRY(out, mhp_calloc(&prometheus, 1, sizeof *prometheus));
    prometheus->total = total;
    MHP_TRY(out, mhp_strdup(&prometheus->path, path));
    MHP_TRY(out, mhp_asprintf(&prometheus->next_path, "%s.tmp", path));
    MHP_TRY(out, escape(run, &prometheus->label));
    MHP_TRY(out, mhp_prometheus_write(prometheus, done, NULL, 0));
    *prometheus_out = prometheus;
    prometheus = NULL;
out:
    mhp_prometheus_close(prometheus);
    return status;
}

void mhp_prometheus_close(mhp_prometheus *prometheus)
{
    if (!prometheus) {
        return;
    }
    mhp_free(prometheus->label);
    mhp_free(prometheus->next_path);
    mhp_free(prometheus->path);
    mhp_free(prometheus);
}

/* Numbers as the format has them. */
static void print_value(FILE *file, double value)
{
    if (isnan(value)) {
        fputs("NaN", file);
    } else if (isinf(value)) {
        fputs(value > 0 ? "+Inf" : "-Inf", file);
    } else {
        fprintf(file, "%.17g", value);
    }
}

static void print_gauge(const mhp_prometheus *prometheus, FILE *file, const char *metric, const char *help, double value)
{
    fprintf(file, "# HELP %s %s\n# TYPE %s gauge\n%s{%s} ", metric, help, metric, metric, prometheus->label);
    print_value(file, value);
    fputc('\n', file);
}

static void print_all(mhp_prometheus *prometheus, FILE *file, int64_t done, const mhp_scalar *scalars, int count)
{
    bool has_held_out = false;

    print_gauge(prometheus, file, "mhcpipe_steps_done", "steps that are done", (double)done);
    print_gauge(prometheus, file, "mhcpipe_steps_planned", "steps of the whole run", (double)prometheus->total);
    print_gauge(prometheus, file, "mhcpipe_written_timestamp_seconds", "Unix time at which this file was written", (double)time(NULL));
    for (int i = 0; i < count; i++) {
        if (strcmp(scalars[i].metric, "mhcpipe_held_out_loss") == 0) {
            has_held_out = true;
            prometheus->held_out = scalars[i];
        }
        print_gauge(prometheus, file, scalars[i].metric, scalars[i].help, scalars[i].value / scalars[i].per_base);
    }
    if (!has_held_out && prometheus->held_out.metric) {
        print_gauge(prometheus, file, prometheus->held_out.metric, prometheus->held_out.help, prometheus->held_out.value);
    }
}

mhp_status mhp_prometheus_write(mhp_prometheus *prometheus, int64_t done, const mhp_scalar *scalars, int count)
{
    FILE *file = fopen(prometheus->next_path, "w");
    bool is_written;

    if (!file) {
        return mhp_error_set(MHP_ERR_IO, "cannot write %s: %s", prometheus->next_path, strerror(errno));
    }
    print_all(prometheus, file, done, scalars, count);
    is_written = !ferror(file);
    is_written = fclose(file) == 0 && is_written;
    if (!is_written || rename(prometheus->next_path, prometheus->path) != 0) {
        mhp_error_set(MHP_ERR_IO, "cannot write %s: %s", prometheus->path, strerror(errno));
        (void)unlink(prometheus->next_path);
        return MHP_ERR_IO;
    }
    return MHP_OK;
}
