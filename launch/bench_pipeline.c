#include "launch/bench_pipeline.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/folder.h"
#include "core/memory.h"
#include "launch/bench.h"
#include "launch/planning.h"
#include "launch/run_report.h"
#include "launch/signals.h"
#include "runtime/profile/identity.h"
#include "runtime/trainer.h"
#include "scheduler/draw.h"
#include "scheduler/formula.h"

enum { WARM_UPS = 2, ROWS_BYTES_MAX = 1 << 20, NAME_MAX_LENGTH = 64 };

/* What a rank adds to a row. */
typedef struct rank_bytes {
    size_t planned, allocated, card; /* of the arena; of all device memory; of the card in use, SIZE_MAX: not known */
} rank_bytes;

typedef struct row {
    const char *name;
    mhp_config config;
    mhp_overrides overrides;
    char *directory;
    double passes_s, step_s;        /* medians: forward and backward; with the optimizer */
    double tokens, flops, joules;   /* of a step; joules NaN: not readable */
    rank_bytes bytes;               /* most of any rank */
    uint64_t start_ns;
} row;

typedef struct bench {
    const mhp_bench_pipeline_params *params;
    mhp_session *session;
    FILE *table; /* rank 0: rows.tsv */
} bench;

/* ---- a row's steps ---- */

/* A step with the optimizer. */
static mhp_status run_step(const bench *b, mhp_trainer *trainer, int64_t step, mhp_step_report *report)
{
    MHP_RETURN_IF_ERROR(mhp_trainer_step(trainer, step, report));
    if (report->fault != MHP_STEP_GOOD) { /* all ranks see the same */
        return mhp_comm_agree(b->session->comm, mhp_error_set(MHP_ERR_NOT_FINITE, "%s", report->fault_text), NULL);
    }
    return MHP_OK;
}

/* `count` steps from `first` on, with the optimizer, by the clock. */
static mhp_status time_whole_steps(const bench *b, row *r, mhp_trainer *trainer, int64_t first, double *seconds)
{
    int count = b->params->repetitions;
    mhp_step_report report;

    for (int i = 0; i < count; i++) {
        MHP_RETURN_IF_ERROR(run_step(b, trainer, first + i, &report));
        seconds[i] = report.step_s;
    }
    r->step_s = mhp_bench_median(seconds, count);
    r->tokens = (double)report.tokens;
    r->flops = report.flops;
    return MHP_OK;
}

/* The same by the meters, which are read in front of the first step and behind the last. */
static mhp_status meter_whole_steps(const bench *b, row *r, mhp_trainer *trainer, int64_t first, double *seconds)
{
    mhp_run_energy_params params = {.world = mhp_trainer_store(trainer)->world, .device = mhp_comm_device(b->session->comm)};
    mhp_run_energy *energy = NULL;
    mhp_energy_total total;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_run_energy_open(&params, &energy));
    MHP_TRY(out, time_whole_steps(b, r, trainer, first, seconds));
    MHP_TRY(out, mhp_run_energy_total(energy, &total));
    r->joules = mhp_joules_sum(&total.run) / b->params->repetitions;
out:
    if (mhp_comm_may_release(b->session->comm, status)) {
        mhp_run_energy_close(energy);
    }
    return status;
}

static mhp_status time_steps(const bench *b, row *r, mhp_trainer *trainer)
{
    mhp_status status = MHP_OK;
    int count = b->params->repetitions;
    mhp_step_report report;
    int64_t step = 0;
    double *seconds = NULL;

    MHP_TRY(out, mhp_calloc(&seconds, (size_t)count, sizeof *seconds));
    for (; step < WARM_UPS; step++) {
        MHP_TRY(out, run_step(b, trainer, step, &report));
    }
    for (int i = 0; i < count; i++) { /* of one batch, which is there already */
        MHP_TRY(out, mhp_trainer_gradients(trainer, step, &report));
        seconds[i] = report.step_s;
    }
    r->passes_s = mhp_bench_median(seconds, count);
    MHP_TRY(out, meter_whole_steps(b, r, trainer, step, seconds));
    step += count;
    for (int i = 0; i < b->params->recorded; i++, step++) {
        MHP_TRY(out, run_step(b, trainer, step, &report));
    }
out:
    mhp_free(seconds);
    return status;
}

static mhp_status measure_bytes(const bench *b, mhp_trainer *trainer, rank_bytes *most_out)
{
    mhp_comm *comm = b->session->comm;
    mhp_device *device = mhp_comm_device(comm);
    rank_bytes own = {.planned = mhp_trainer_memory(trainer)->bytes, .allocated = mhp_device_bytes(device), .card = SIZE_MAX};
    rank_bytes *all = NULL;
    mhp_status status = MHP_OK;
    size_t free_bytes, total;

    MHP_RETURN_IF_ERROR(mhp_device_memory(device, &free_bytes, &total));
    if (total != SIZE_MAX) {
        own.card = total - free_bytes;
    }
    MHP_TRY(out, mhp_calloc(&all, (size_t)mhp_comm_size(comm), sizeof *all));
    MHP_TRY(out, mhp_comm_share(comm, &own, sizeof own, all));
    *most_out = all[0];
    for (int rank = 1; rank < mhp_comm_size(comm); rank++) {
        most_out->planned = all[rank].planned > most_out->planned ? all[rank].planned : most_out->planned;
        most_out->allocated = all[rank].allocated > most_out->allocated ? all[rank].allocated : most_out->allocated;
        most_out->card = all[rank].card > most_out->card ? all[rank].card : most_out->card;
    }
out:
    mhp_free(all);
    return status;
}

static mhp_status run_trainer(const bench *b, row *r)
{
    mhp_config *config = &r->config;
    mhp_trainer_params params = {
        .comm = b->session->comm,
        .model = &config->model,
        .parallel = &config->parallel,
        .schedule = &config->schedule,
        .optimizer = &config->optimizer,
        .train = &config->train,
        .profile = &config->profile,
        .directory = r->directory,
        .samples = {mhp_bench_sample, config},
    };
    mhp_trainer *trainer = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_trainer_create(&params, &trainer));
    MHP_TRY(out, mhp_bench_fill(mhp_trainer_store(trainer)));
    MHP_TRY(out, mhp_optimizer_reset(mhp_trainer_optimizer(trainer)));
    MHP_TRY(out, time_steps(b, r, trainer));
    MHP_TRY(out, measure_bytes(b, trainer, &r->bytes));
out:
    if (mhp_comm_may_release(b->session->comm, status)) {
        mhp_trainer_destroy(trainer);
    }
    return status;
}

/* ---- the table ---- */

/* Of the recorded steps. Shares are of 1; the worst rank's where not said otherwise. */
typedef struct figures {
    double hidden;                  /* of messages' time, all ranks together; NaN without messages */
    double reduce_hidden;           /* of reductions' */
    double exposed_us;              /* messages */
    double bubble, bubble_simulated, bubble_formula; /* the last NaN: there is none */
    double simulated_us;
} figures;

/* The worst rank's time without compute, as the simulator counts it: exposed messages are part of it. Mean over the recorded steps. */
static double measured_bubble(const mhp_analysis *analysis)
{
    double bubble = 0;

    for (int s = 0; s < analysis->step_count; s++) {
        const mhp_step_analysis *step = &analysis->steps[s];
        double length_us = mhp_measured_end_us(step) - mhp_measured_begin_us(step);
        double least_us = INFINITY;

        for (int rank = 0; rank < analysis->rank_count; rank++) {
            least_us = fmin(least_us, step->ranks[rank].compute_us);
        }
        bubble += (1 - least_us / length_us) / analysis->step_count;
    }
    return bubble;
}

static double share_of(double part, double whole)
{
    return whole > 0 ? part / whole : NAN;
}

static void sum_transfers(const mhp_analysis *analysis, figures *f)
{
    static const mhp_trace_cause messages[] = {MHP_CAUSE_STATE, MHP_CAUSE_GRADIENT};
    double transfer_us = 0, hidden_us = 0, reduce_us = 0, reduce_hidden_us = 0;

    for (int rank = 0; rank < analysis->rank_count; rank++) {
        const mhp_rank_figures *mean = &analysis->mean[rank];
        double exposed_us = 0;

        for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
            transfer_us += mean->transfer_us[messages[i]];
            hidden_us += mean->hidden_us[messages[i]];
            exposed_us += mean->exposed_of_us[messages[i]];
        }
        reduce_us += mean->transfer_us[MHP_CAUSE_REDUCE];
        reduce_hidden_us += mean->hidden_us[MHP_CAUSE_REDUCE];
        f->exposed_us = fmax(f->exposed_us, exposed_us);
    }
    f->hidden = share_of(hidden_us, transfer_us);
    f->reduce_hidden = share_of(reduce_hidden_us, reduce_us);
}

static figures figures_of(const mhp_run_report *run)
{
    const mhp_simulation *planned = &run->report.planned;
    figures f = {.bubble = measured_bubble(&run->analysis),
                 .bubble_simulated = mhp_simulation_worst_bubble(planned),
                 .bubble_formula = NAN,
                 .simulated_us = planned->makespan_us};
    double formula_us, busy_us = 0;

    sum_transfers(&run->analysis, &f);
    for (int rank = 0; rank < planned->rank_count; rank++) {
        busy_us += planned->ranks[rank].busy_us / planned->rank_count;
    }
    if (mhp_formula_bubble(run->config.schedule.kind, run->layout.plan, &run->report.measured.costs, &formula_us)) {
        f.bubble_formula = formula_us / (formula_us + busy_us);
    }
    return f;
}

static const char head[] = "name\tstep_ms\tpasses_ms\ttokens_s\tmfu\thidden\texposed_ms\tbubble\tbubble_simulated\tbubble_formula\t"
                           "simulated_ms\treduce_hidden\tplanned_gib\tallocated_gib\tcard_gib\tj_token\tseconds\terror\n";

/* A cell that is empty where there is no figure. */
static void put(FILE *stream, int digits, double value)
{
    if (isfinite(value)) {
        fprintf(stream, "%.*f", digits, value);
    }
    fputc('\t', stream);
}

static double gib(size_t bytes)
{
    return bytes == SIZE_MAX ? NAN : (double)bytes / (1024.0 * 1024 * 1024);
}

static double utilisation(const bench *b, const row *r)
{
    double peak = mhp_bench_peak_flops(mhp_comm_device(b->session->comm), (mhp_dtype)r->config.model.dtype);

    return r->flops / r->passes_s / peak / mhp_comm_size(b->session->comm);
}

static double row_seconds(const row *r)
{
    return (double)(mhp_time_ns() - r->start_ns) * 1e-9;
}

static void write_row(const bench *b, const row *r, const figures *f)
{
    FILE *t = b->table;

    fprintf(t, "%s\t", r->name);
    put(t, 3, r->step_s * 1e3);
    put(t, 3, r->passes_s * 1e3);
    put(t, 1, r->tokens / r->passes_s);
    put(t, 4, utilisation(b, r));
    put(t, 4, f->hidden);
    put(t, 3, f->exposed_us * 1e-3);
    put(t, 4, f->bubble);
    put(t, 4, f->bubble_simulated);
    put(t, 4, f->bubble_formula);
    put(t, 3, f->simulated_us * 1e-3);
    put(t, 4, f->reduce_hidden);
    put(t, 3, gib(r->bytes.planned));
    put(t, 3, gib(r->bytes.allocated));
    put(t, 3, gib(r->bytes.card));
    put(t, 6, r->joules / r->tokens);
    put(t, 3, row_seconds(r));
    fprintf(t, "\n");
    printf("%-28s %9.3f ms forward and backward, %9.3f ms with the optimizer, %9.0f tokens/s, hidden %5.1f %%, bubble %4.1f %%; "
           "%.1f s\n", r->name, r->passes_s * 1e3, r->step_s * 1e3, r->tokens / r->passes_s, 100 * f->hidden, 100 * f->bubble,
           row_seconds(r));
    fflush(stdout);
}

/* The reason in one cell. */
static void write_failure(const bench *b, const row *r)
{
    char text[MHP_ERROR_TEXT_MAX];

    snprintf(text, sizeof text, "%s", mhp_error_text());
    for (char *c = text; *c; c++) {
        *c = isspace((unsigned char)*c) ? ' ' : *c;
    }
    fprintf(b->table, "%s\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t%.3f\t%s\n", r->name, row_seconds(r), text);
    printf("%-28s failed: %s; %.1f s\n", r->name, text, row_seconds(r));
    fflush(stdout);
}

/* The recorded step of median length, as plan draws simulated ones. */
static mhp_status write_picture(void *context, FILE *stream)
{
    const mhp_run_report *run = context;
    const mhp_analysis *analysis = &run->analysis;
    mhp_simulation step = {0};
    mhp_drawing drawing = {0};
    mhp_draw_params params = {.plan = run->layout.plan, .costs = &run->report.measured.costs, .simulation = &step, .time_unit = "us"};
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_profile_report_step(&run->report, &analysis->steps[analysis->median], &step));
    MHP_TRY(out, mhp_draw(&params, &drawing));
    MHP_TRY(out, mhp_draw_svg(&drawing, stream));
out:
    mhp_drawing_release(&drawing);
    mhp_simulation_release(&step);
    return status;
}

/* Rank 0: the recorded steps' picture, costs and figures. */
static mhp_status report_row(const bench *b, const row *r)
{
    mhp_run_report run;
    figures f;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_run_report_read(r->directory, &run));
    MHP_TRY(out, mhp_run_report_write(&run, "report.html", mhp_run_report_write_page));
    MHP_TRY(out, mhp_run_report_write(&run, "step.svg", write_picture));
    MHP_TRY(out, mhp_run_report_write(&run, "costs.yaml", mhp_run_report_write_costs));
    f = figures_of(&run);
    write_row(b, r, &f);
out:
    mhp_run_report_release(&run);
    return status;
}

/* ---- rows ---- */

/* What the process settled for all rows. */
static mhp_status check_process(const bench *b, const row *r)
{
    const mhp_parallel_params *ours = &b->session->config.parallel, *theirs = &r->config.parallel;

    if (theirs->transport != ours->transport || theirs->device != ours->device || theirs->threads != ours->threads) {
        return mhp_error_set(MHP_ERR_CONFIG, "row %s: expected parallel.transport, device and threads as --set gives them for all rows",
                             r->name);
    }
    return MHP_OK;
}

/* Those of an earlier bench: a row that fails has none. */
static mhp_status remove_figures(const char *directory)
{
    static const char *const names[] = {"step.svg", "costs.yaml"};

    MHP_RETURN_IF_ERROR(mhp_folder_remove_names(directory, names, sizeof names / sizeof *names));
    return mhp_profile_remove(directory);
}

/* What this rank can do alone. */
static mhp_status prepare_row(const bench *b, row *r)
{
    mhp_config *config = &r->config;

    MHP_RETURN_IF_ERROR(mhp_asprintf(&r->directory, "%s/%s", b->params->output, r->name));
    MHP_RETURN_IF_ERROR(b->session->root ? remove_figures(r->directory) : MHP_OK);
    MHP_RETURN_IF_ERROR(mhp_config_load(config, b->params->config, r->overrides.items, r->overrides.count));
    MHP_RETURN_IF_ERROR(check_process(b, r));
    config->train.steps = WARM_UPS + b->params->repetitions + b->params->recorded;
    config->profile.start = WARM_UPS + b->params->repetitions;
    config->profile.steps = b->params->recorded;
    if (b->session->root) {
        MHP_RETURN_IF_ERROR(mhp_mkdirs(r->directory));
        MHP_RETURN_IF_ERROR(mhp_config_save(config, r->directory));
    }
    return MHP_OK;
}

static mhp_status try_row(const bench *b, row *r)
{
    mhp_comm *comm = b->session->comm;

    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, prepare_row(b, r), NULL));
    MHP_RETURN_IF_ERROR(run_trainer(b, r));
    return mhp_comm_agree(comm, b->session->root ? report_row(b, r) : MHP_OK, NULL);
}

/* A row whose error the ranks did not agree on stays: messages and kernels may be under way that use its configuration. */
static mhp_status run_row(const bench *b, row *r)
{
    mhp_comm *comm = b->session->comm;
    mhp_status status;

    r->start_ns = mhp_time_ns();
    mhp_signals_limit(b->params->row_seconds, "a row of the bench took longer than --row-seconds");
    status = try_row(b, r);
    mhp_signals_limit(0, NULL);
    if (!mhp_comm_may_release(comm, status)) {
        return status;
    }
    if (status != MHP_OK) {
        mhp_comm_forget_failure(comm);
        if (b->table) {
            write_failure(b, r);
        }
        status = MHP_OK;
    }
    if (b->table && fflush(b->table) != 0) {
        status = mhp_error_set(MHP_ERR_IO, "cannot write to %s/rows.tsv: %s", b->params->output, strerror(errno));
    }
    mhp_free(r->directory);
    mhp_config_release(&r->config);
    mhp_free(r);
    return status;
}

static mhp_status create_row(const bench *b, const char *name, row **row_out)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(row_out, 1, sizeof **row_out));
    (*row_out)->name = name;
    (*row_out)->overrides = *b->params->overrides;
    return MHP_OK;
}

static mhp_status check_name(const bench *b, const char *name, int line)
{
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+");

    if (name[good] || strlen(name) > NAME_MAX_LENGTH || name[0] == '.') {
        return mhp_error_set(MHP_ERR_CONFIG, "%s:%d: row \"%s\": expected a name of at most %d letters, digits, -, _, + and .", b->params->rows,
                             line, name, NAME_MAX_LENGTH);
    }
    return MHP_OK;
}

/* The settings of a line behind its name, which stay where they are. */
static mhp_status add_settings(const bench *b, row *r, int line, char **rest)
{
    for (char *word = strtok_r(NULL, " \t\r", rest); word; word = strtok_r(NULL, " \t\r", rest)) {
        if (r->overrides.count == MHP_OVERRIDES_MAX) {
            return mhp_error_set(MHP_ERR_LIMIT, "%s:%d: expected at most %d settings", b->params->rows, line, MHP_OVERRIDES_MAX);
        }
        r->overrides.items[r->overrides.count++] = word;
    }
    return MHP_OK;
}

/* One line of the file: a name and overrides, which stay in `text`. */
static mhp_status run_line(const bench *b, char *text, int line)
{
    mhp_comm *comm = b->session->comm;
    row *r = NULL;
    char *name, *rest = NULL;
    mhp_status status;

    text[strcspn(text, "#")] = '\0';
    name = strtok_r(text, " \t\r", &rest);
    if (!name) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, check_name(b, name, line), NULL));
    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, create_row(b, name, &r), NULL));
    status = mhp_comm_agree(comm, add_settings(b, r, line, &rest), NULL);
    if (status < 0) {
        mhp_free(r);
        return status;
    }
    return run_row(b, r);
}

static mhp_status run_rows(const bench *b)
{
    mhp_status status = MHP_OK;
    char *text = NULL;
    size_t size;
    int line = 0;

    if (!b->params->rows) {
        row *r = NULL;

        MHP_RETURN_IF_ERROR(mhp_comm_agree(b->session->comm, create_row(b, "row", &r), NULL));
        return run_row(b, r);
    }
    MHP_TRY(out, mhp_comm_agree(b->session->comm, mhp_file_read_all(b->params->rows, ROWS_BYTES_MAX, &text, &size), NULL));
    for (char *at = text; at && status == MHP_OK;) {
        char *end = strchr(at, '\n');

        if (end) {
            *end = '\0';
        }
        status = run_line(b, at, ++line);
        at = end ? end + 1 : NULL;
    }
out:
    mhp_free(text);
    return status;
}

/* A table that is there already goes on. */
static mhp_status open_table(bench *b)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_mkdirs(b->params->output));
    MHP_TRY(out, mhp_asprintf(&path, "%s/rows.tsv", b->params->output));
    b->table = fopen(path, "a");
    if (!b->table || fseek(b->table, 0, SEEK_END) != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot write to %s: %s", path, strerror(errno));
    }
    fputs(ftell(b->table) == 0 ? head : "", b->table);
out:
    mhp_free(path);
    return status;
}

mhp_status mhp_bench_pipeline(mhp_session *session, const mhp_bench_pipeline_params *params)
{
    bench b = {.params = params, .session = session};
    mhp_status status = mhp_comm_agree(session->comm, session->root ? open_table(&b) : MHP_OK, NULL);

    if (status == MHP_OK) {
        status = run_rows(&b);
    }
    if (b.table) {
        fclose(b.table);
    }
    return status;
}
