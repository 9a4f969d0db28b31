/* What must hold of a run's files, found out by reading them:
 *   figures REPORT_JSON [PERCENT] every rank's parts add up to its step, shares are shares, what recording cost is at most so much of
 *                                 a step (20), energy is known or has a reason, and idle energy is what shares of the step make of it
 *   trace TRACE_JSON              events of a thread nest, flows have both ends in that order, counters never fall below 0,
 *                                 and slots are filled while they are
 *   nested TRACE_JSON             the same of a run that may have no messages, but has a card's records
 *   records REPORT_JSON PERCENT [PERCENT]
 *                                 every rank has a card's records, all of them, and computed as long by them as by events; ranks
 *                                 that are several got states and gradients; messages took as long by records as by events
 *   lanes FOLDER                  traces: no group begins before the end of what its lane waited for; some are on lanes beside compute
 *   power METRICS_JSONL CARDS     every step's energy is known, and makes a power that a card can have
 *   drawn REPORT_HTML BYTES       the page is no larger; all boxes lie within its time axis; curves are of at most 2000 points, of which
 *                                 each is a later step than the one before
 *   page REPORT_JSON DOM          every figure that the page shows is the report's, and what it draws as idle as well
 * Prints what it looked at; the first thing that does not hold ends it. */
#include "tests/report/check_report.h"

#include <math.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "tests/report/lane_order.h"

enum { FILE_BYTES_MAX = 1 << 28, PATH_MAX_BYTES = 256 };

static json_t *read_json(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);

    CHECK(root, "%s: line %d: %s", path, error.line, error.text);
    return root;
}

/* ---- figures ---- */

static double sum_of(const json_t *object)
{
    const char *key;
    json_t *value;
    double sum = 0;

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        sum += json_is_object(value) ? sum_of(value) : json_number_value(value);
    }
    return sum;
}

static void check_rank(const json_t *rank, size_t index)
{
    double step = number_at(rank, "step_us"), compute = number_at(rank, "compute_us");
    bool received = number_at(rank, "transfer_us") > 0;
    double hidden = received ? number_at(rank, "hidden_share") : 0;
    double sum = compute + number_at(rank, "exposed_us") + number_at(rank, "bubble_us") + number_at(rank, "other_us");
    double parts =
        sum_of(json_object_get(rank, "groups_us")) + number_at(rank, "norm_us") + number_at(rank, "update_us");
    const json_t *transfers = json_object_get(rank, "transfers");
    const char *key;
    json_t *transfer;

    CHECK(step > 0 && compute > 0, "rank %zu did nothing", index);
    CHECK(fabs(sum - step) <= 1e-3 * step, "rank %zu: %.3f us are accounted for of %.3f", index, sum, step);
    CHECK(fabs(parts - compute) <= 1e-6 * step, "rank %zu: parts of %.3f us, compute of %.3f", index, parts, compute);
    CHECK(received || json_is_null(json_object_get(rank, "hidden_share")), "rank %zu: a hidden share of no transfers", index);
    CHECK(hidden >= 0 && hidden <= 1, "rank %zu: a hidden share of %.3f", index, hidden);
    json_object_foreach((json_t *)(uintptr_t)transfers, key, transfer)
    {
        CHECK(number_at(transfer, "hidden_us") <= number_at(transfer, "transfer_us") + 1e-6 &&
                  number_at(transfer, "hidden_us") >= 0,
              "rank %zu: more of %s is hidden than there is", index, key);
    }
}

/* ---- energy in the report ---- */

/* With one recorded step, its means are that step's. */
static void check_meter(const json_t *ranks, const json_t *meter, const char *idle_us, const char *idle_j)
{
    const json_t *served = json_object_get(meter, "ranks");
    double sum = 0, expected;

    for (size_t i = 0; i < json_array_size(served); i++) {
        const json_t *rank = json_array_get(ranks, (size_t)json_integer_value(json_array_get(served, i)));

        sum += number_at(rank, idle_us) / number_at(rank, "step_us");
    }
    expected = number_at(meter, "j_per_step") * sum / (double)json_array_size(served);
    CHECK(fabs(number_at(meter, idle_j) - expected) <= 1e-9 * expected, "%s is %.9f, expected %.9f", idle_j, number_at(meter, idle_j), expected);
}

static void check_energy(const json_t *root)
{
    static const char *const kinds[] = {"gpu", "cpu"};
    const json_t *energy = json_object_get(root, "energy"), *meters = json_object_get(energy, "meters"),
                 *ranks = json_object_get(root, "ranks"), *run = json_object_get(energy, "run");

    CHECK(json_is_object(energy), "no energy");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const json_t *kind = json_object_get(energy, kinds[k]);
        bool known = json_is_number(json_object_get(kind, "bubble_j")) && json_is_number(json_object_get(kind, "exposed_j"));

        CHECK(known ? number_at(kind, "bubble_j") + number_at(kind, "exposed_j") <= number_at(kind, "j_per_step") * (1 + 1e-9)
                    : json_is_string(json_object_get(kind, "reason")),
              "%s: neither joules nor a reason", kinds[k]);
    }
    CHECK(json_is_number(json_object_get(run, "kwh")) || json_is_string(json_object_get(run, "reason")), "the run has no kWh and no reason");
    CHECK(json_is_number(json_object_get(run, "co2e_g")) || json_is_string(json_object_get(run, "co2e_reason")), "no CO2e and no reason");
    for (size_t i = 0; number_at(json_object_get(root, "run"), "steps") == 1 && i < json_array_size(meters); i++) {
        check_meter(ranks, json_array_get(meters, i), "bubble_us", "bubble_j");
        check_meter(ranks, json_array_get(meters, i), "exposed_us", "exposed_j");
    }
}

static void check_figures(const char *path, double most_percent)
{
    json_t *root = read_json(path), *ranks = json_object_get(root, "ranks"), *rank,
           *words = json_object_get(root, "definitions");
    const json_t *critical = json_object_get(root, "critical_path");
    double length = number_at(critical, "length_us");
    double sum = sum_of(json_object_get(critical, "groups_us")) + sum_of(json_object_get(critical, "transfers_us")) +
                 number_at(critical, "optimizer_us") + number_at(critical, "other_us");
    double share;
    size_t i;

    CHECK(json_array_size(ranks) > 0, "no rank in %s", path);
    json_array_foreach(ranks, i, rank)
    {
        check_rank(rank, i);
    }
    CHECK(fabs(sum - length) <= 1e-6 * length, "the critical path has parts of %.3f us, and is %.3f long", sum, length);
    CHECK(fabs(length - number_at(root, "mean_step_us")) <= 1e-6 * length,
          "the critical path is not as long as the step");
    share = 100 * number_at(json_object_get(root, "recording"), "share");
    CHECK(share > 0 || number_at(json_object_get(root, "recording"), "mark_ns") == 0, "recording cost nothing");
    CHECK(share <= most_percent, "recording took %.3f %% of a step, expected at most %.3f", share, most_percent);
    CHECK(json_object_size(words) >= 8, "terms without definitions");
    check_energy(root);
    printf("%zu ranks add up; recording took %.3f %% of a step\n", json_array_size(ranks), share);
    json_decref(root);
}

/* ---- the trace ---- */

typedef struct slice {
    int rank, thread;
    int64_t start_ns, end_ns;
} slice;

static int compare_slices(const void *left, const void *right)
{
    const slice *a = left, *b = right;

    if (a->rank != b->rank || a->thread != b->thread) {
        return a->rank != b->rank ? a->rank - b->rank : a->thread - b->thread;
    }
    if (a->start_ns != b->start_ns) {
        return a->start_ns < b->start_ns ? -1 : 1;
    }
    return (a->end_ns < b->end_ns) - (a->end_ns > b->end_ns); /* the longer one encloses */
}

/* Each slice of a thread begins behind the end of those before it, or ends inside the one that it begins in. */
static void check_nesting(slice *slices, size_t count)
{
    slice *open = NULL;
    size_t depth = 0;

    CHECK(mhp_calloc(&open, count, sizeof *open) == MHP_OK, "%s", mhp_error_text());
    qsort(slices, count, sizeof *slices, compare_slices);
    for (size_t i = 0; i < count; i++) {
        bool same = i > 0 && slices[i].rank == slices[i - 1].rank && slices[i].thread == slices[i - 1].thread;

        depth = same ? depth : 0;
        while (depth > 0 && open[depth - 1].end_ns <= slices[i].start_ns) {
            depth--;
        }
        CHECK(depth == 0 || slices[i].end_ns <= open[depth - 1].end_ns,
              "rank %d, thread %d: the event from %lld to %lld ns crosses another's end", slices[i].rank,
              slices[i].thread, (long long)slices[i].start_ns, (long long)slices[i].end_ns);
        open[depth++] = slices[i];
    }
    mhp_free(open);
}

typedef struct flow {
    json_int_t id;
    double start, end; /* -1: not seen */
} flow;

static int compare_flows(const void *left, const void *right)
{
    const flow *a = left, *b = right;

    return (a->id > b->id) - (a->id < b->id);
}

/* Both ends of a flow are apart in the list. */
static void check_flows(flow *flows, size_t count)
{
    CHECK(count > 0 && count % 2 == 0, "%zu ends of flows", count);
    qsort(flows, count, sizeof *flows, compare_flows);
    for (size_t i = 0; i < count; i += 2) {
        double start = fmax(flows[i].start, flows[i + 1].start), end = fmax(flows[i].end, flows[i + 1].end);

        CHECK(flows[i].id == flows[i + 1].id && (i + 2 == count || flows[i + 2].id != flows[i].id),
              "flow %lld has not two ends", (long long)flows[i].id);
        CHECK(start >= 0 && end >= start, "flow %lld ends before it starts", (long long)flows[i].id);
    }
}

static void check_counter(const json_t *event)
{
    const char *key;
    json_t *value;

    json_object_foreach(json_object_get(event, "args"), key, value)
    {
        CHECK(json_is_number(value) && json_number_value(value) >= 0, "counter %s is below 0", key);
    }
}

static bool is_card_stream(const json_t *event)
{
    const char *name = json_string_value(json_object_get(json_object_get(event, "args"), "name"));

    return name && strncmp(name, "CUDA stream ", 12) == 0;
}

static void check_trace(const char *path, bool card)
{
    json_t *root = read_json(path), *events = json_object_get(root, "traceEvents"), *event;
    size_t i, slice_count = 0, flow_count = 0, counter_count = 0, name_count = 0, card_streams = 0;
    slice *slices = NULL;
    flow *flows = NULL;

    CHECK(mhp_calloc(&slices, json_array_size(events), sizeof *slices) == MHP_OK, "%s", mhp_error_text());
    CHECK(mhp_calloc(&flows, json_array_size(events), sizeof *flows) == MHP_OK, "%s", mhp_error_text());
    json_array_foreach(events, i, event)
    {
        const char *phase = json_string_value(json_object_get(event, "ph"));
        int rank = (int)number_at(event, "pid"), thread = (int)number_at(event, "tid");

        CHECK(phase && json_string_value(json_object_get(event, "name")), "event %zu has no phase or name", i);
        if (*phase == 'M') {
            name_count++;
            card_streams += is_card_stream(event);
            continue;
        }
        CHECK(number_at(event, "ts") >= 0, "event %zu stands before the begin", i);
        if (*phase == 'X') {
            CHECK(number_at(event, "dur") >= 0, "event %zu takes negative time", i);
            slices[slice_count++] =
                (slice){rank, thread, llround(1e3 * number_at(event, "ts")),
                        llround(1e3 * number_at(event, "ts")) + llround(1e3 * number_at(event, "dur"))};
        } else if (*phase == 's' || *phase == 'f') {
            flows[flow_count++] =
                (flow){json_integer_value(json_object_get(event, "id")), *phase == 's' ? number_at(event, "ts") : -1,
                       *phase == 'f' ? number_at(event, "ts") : -1};
        } else {
            CHECK(*phase == 'C', "event %zu is of the unknown phase %s", i, phase);
            check_counter(event);
            counter_count++;
        }
    }
    check_nesting(slices, slice_count);
    if (!card || flow_count > 0) {
        check_flows(flows, flow_count);
    }
    CHECK(!card || card_streams > 0, "no CUDA stream has a thread");
    CHECK(counter_count > 0 && name_count > 0, "no counters or no names");
    printf("%zu events nest, %zu messages, %zu counts, %zu of filled slots, %zu CUDA streams\n", slice_count, flow_count / 2,
           counter_count, check_slots(events), card_streams);
    mhp_free(slices);
    mhp_free(flows);
    json_decref(root);
}

/* ---- the traces ---- */

static void check_lanes(const char *folder)
{
    mhp_trace_set set;
    size_t beside_count = 0;

    CHECK(mhp_trace_set_read(folder, &set) == MHP_OK, "%s", mhp_error_text());
    for (int rank = 0; rank < set.count; rank++) {
        char text[LANE_ORDER_TEXT_MAX];

        beside_count += lane_order_check(&set.ranks[rank], text);
        CHECK(!text[0], "%s", text);
    }
    CHECK(beside_count > 0, "no pair has a lane beside compute");
    printf("%zu groups beside compute begin where they could\n", beside_count);
    mhp_trace_set_release(&set);
}

/* ---- a card's records ---- */

static void check_records_of(const json_t *rank, size_t index, double most_percent)
{
    const json_t *records = json_object_get(rank, "records");
    const char *reason = json_string_value(json_object_get(rank, "no_records"));
    double events, found, apart;

    CHECK(json_is_object(records), "rank %zu has no kernel records: %s", index, reason ? reason : "not asked for");
    events = number_at(records, "compute_events_us");
    found = number_at(records, "compute_records_us");
    apart = number_at(records, "difference_percent");
    printf("rank %zu: compute %.3f ms by events, %.3f ms by records, %+.2f %% apart; of these %.3f ms in gaps; %.0f kernels "
           "in %.3f ms; copies %.3f ms, %.3f MB; clock read within %.2f us, %.0f lost\n",
           index, 1e-3 * events, 1e-3 * found, apart, 1e-3 * number_at(records, "gaps_us"), number_at(records, "kernels"),
           1e-3 * number_at(records, "kernel_us"), 1e-3 * number_at(records, "copy_us"),
           1e-6 * number_at(records, "copy_bytes"), number_at(records, "clock_error_us"), number_at(records, "lost"));
    CHECK(number_at(records, "kernels") > 0 && number_at(records, "kernel_us") > 0, "rank %zu has no kernel records", index);
    CHECK(number_at(records, "lost") == 0, "rank %zu lost records", index);
    CHECK(fabs(100 * (events - found) / events - apart) < 1e-6, "rank %zu: %.3f %% is not what the two say", index, apart);
    CHECK(fabs(apart) <= most_percent, "rank %zu: %.3f %% apart, expected at most %.3f", index, apart, most_percent);
}

static void check_kinds(const json_t *ranks)
{
    static const char *const kinds[] = {"state", "gradient"};

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        double sum = 0;

        for (size_t i = 0; i < json_array_size(ranks); i++) {
            const json_t *transfers = json_object_get(json_array_get(ranks, i), "transfers");

            sum += number_at(json_object_get(transfers, kinds[k]), "transfer_us");
        }
        printf("messages, %s: %.3f ms a step by events, all ranks\n", kinds[k], 1e-3 * sum);
        CHECK(sum > 0, "no message is a %s", kinds[k]);
    }
}

static void check_messages(const json_t *messages, const char *reason, double most_percent)
{
    double events, found, apart;

    CHECK(json_is_object(messages), "messages are not known by records: %s", reason);
    events = number_at(messages, "events_us");
    found = number_at(messages, "records_us");
    apart = number_at(messages, "difference_percent");
    CHECK(events > 0 && found > 0, "messages: %.3f us by events, %.3f us by records", events, found);
    CHECK(fabs(100 * (events - found) / events - apart) < 1e-6, "messages: %.3f %% is not what the two say", apart);
    CHECK(fabs(apart) <= most_percent, "messages: %.3f %% apart, expected at most %.3f", apart, most_percent);
}

/* `judged`: of messages, a percentage; NULL where they are not judged. */
static void check_records(const char *path, double most_percent, const char *judged)
{
    json_t *root = read_json(path), *ranks = json_object_get(root, "ranks"), *rank;
    const json_t *messages = json_object_get(root, "messages_by_records");
    const char *reason = json_string_value(json_object_get(root, "no_messages_by_records"));
    size_t i;

    json_array_foreach(ranks, i, rank)
    {
        check_records_of(rank, i, most_percent);
    }
    if (json_array_size(ranks) > 1) {
        check_kinds(ranks);
    }
    if (json_is_object(messages)) {
        printf("messages: %.3f ms a step by events, %.3f ms by records of %s, %+.2f %% apart\n",
               1e-3 * number_at(messages, "events_us"), 1e-3 * number_at(messages, "records_us"),
               json_string_value(json_object_get(messages, "of")), number_at(messages, "difference_percent"));
    } else {
        CHECK(reason, "messages have neither a reading by records nor a reason");
        printf("messages: not known by records: %s\n", reason);
    }
    if (judged) {
        check_messages(messages, reason, atof(judged));
    }
    json_decref(root);
}

/* ---- energy ---- */

enum { WARM_UP_STEPS = 3 };
static const double least_w = 30, most_w = 1000;

static void check_power(const char *path, int cards)
{
    FILE *file = fopen(path, "r");
    double joules = 0, seconds = 0, power;
    size_t steps = 0;
    json_t *line;

    CHECK(file, "cannot read %s", path);
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        if (json_object_get(line, "ms_per_step")) {
            CHECK(json_is_number(json_object_get(line, "energy_gpu_j")), "step %.0f has no energy of its cards",
                  number_at(line, "step"));
            joules += steps < WARM_UP_STEPS ? 0 : number_at(line, "energy_gpu_j");
            seconds += steps < WARM_UP_STEPS ? 0 : 1e-3 * number_at(line, "ms_per_step");
            steps++;
        }
        json_decref(line);
    }
    fclose(file);
    CHECK(steps > WARM_UP_STEPS && seconds > 0, "%zu steps in %s", steps, path);
    power = joules / seconds / cards;
    printf("energy: %.1f J in %.3f s of steps on %d cards, %.1f W each; %.2f J a step\n", joules, seconds, cards, power,
           joules / (double)(steps - WARM_UP_STEPS));
    CHECK(power >= least_w && power <= most_w, "%.1f W, expected %.0f to %.0f", power, least_w, most_w);
}

/* ---- the page's data ---- */

enum { CURVE_POINTS_MAX = 2000 };

static void check_boxes(const json_t *drawing, double end_us)
{
    const json_t *boxes = json_object_get(drawing, "boxes");
    double last_us = 0;

    for (size_t i = 0; i < json_array_size(boxes); i++) {
        last_us = fmax(last_us, json_number_value(json_array_get(json_array_get(boxes, i), 7)));
    }
    CHECK(last_us > 0 && last_us <= end_us + 1e-6 * end_us, "a box ends at %.3f us, the axis at %.3f", last_us, end_us);
}

static void check_curve(const char *key, const json_t *points)
{
    size_t count = json_array_size(points) / 2;

    CHECK(count <= CURVE_POINTS_MAX, "%s has %zu points", key, count);
    for (size_t i = 1; i < count; i++) {
        CHECK(json_number_value(json_array_get(points, 2 * i)) > json_number_value(json_array_get(points, 2 * i - 2)),
              "%s: point %zu is not behind the one before", key, i);
    }
}

static void check_drawing(const char *path, double most_bytes)
{
    static const char mark[] = "const data=";
    char *text = NULL, *begin;
    size_t size, points = 0;
    json_t *data, *curve;
    const char *key;
    double end_us;

    CHECK(mhp_file_read_all(path, FILE_BYTES_MAX, &text, &size) == MHP_OK, "%s", mhp_error_text());
    begin = strstr(text, mark);
    CHECK(begin, "no data in %s", path);
    data = json_loads(begin + sizeof mark - 1, JSON_DISABLE_EOF_CHECK, NULL);
    CHECK((double)size <= most_bytes, "%s has %zu bytes, expected at most %.0f", path, size, most_bytes);
    end_us = number_at(data, "end_us");
    check_boxes(json_object_get(data, "planned"), end_us);
    check_boxes(json_object_get(data, "measured"), end_us);
    json_object_foreach(json_object_get(data, "metrics"), key, curve)
    {
        if (json_is_array(curve) && strcmp(key, "events") != 0) {
            check_curve(key, curve);
            points += json_array_size(curve) / 2;
        }
    }
    printf("a page of %zu bytes, an axis of %.3f us, %zu points of curves\n", size, end_us, points);
    json_decref(data);
    mhp_free(text);
}

/* ---- the page ---- */

/* The value of an attribute from `at` on, unescaped into `text`; NULL if there is none. */
static const char *read_attribute(const char *at, const char *name, char *text, size_t size)
{
    char wanted[64];
    size_t length = 0;

    snprintf(wanted, sizeof wanted, " %s=\"", name);
    at = at ? strstr(at, wanted) : NULL;
    if (!at) {
        return NULL;
    }
    for (at += strlen(wanted); *at && *at != '"' && length + 1 < size; length++) {
        bool quote = strncmp(at, "&quot;", 6) == 0;

        text[length] = quote ? '"' : *at;
        at += quote ? 6 : 1;
    }
    text[length] = '\0';
    return at;
}

/* NaN: null, which the page says as well. */
static double find_figure(const json_t *root, const char *path)
{
    char copy[PATH_MAX_BYTES], *rest = NULL;
    const json_t *at = root;

    snprintf(copy, sizeof copy, "%s", path);
    for (char *key = strtok_r(copy, "/", &rest); key && at; key = strtok_r(NULL, "/", &rest)) {
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    }
    CHECK(json_is_number(at) || json_is_null(at), "the page shows %s, which the report has not", path);
    return json_is_null(at) ? NAN : json_number_value(at);
}

static size_t check_shown(const json_t *report, const char *dom)
{
    char key[PATH_MAX_BYTES], value[PATH_MAX_BYTES];
    size_t count = 0;

    while ((dom = read_attribute(dom, "data-key", key, sizeof key)) != NULL) {
        double expected = find_figure(report, key);

        dom = read_attribute(dom, "data-value", value, sizeof value);
        CHECK(dom && (isnan(expected) ? strcmp(value, "null") == 0 : fabs(strtod(value, NULL) - expected) <= 1e-9 * fabs(expected)),
              "the page shows %s for %s: expected %.15g", value, key, expected);
        count++;
    }
    return count;
}

/* With one recorded step what is drawn is what is averaged. */
static void check_drawn(const json_t *report, const char *dom)
{
    static char text[1 << 20];
    static const char *const kinds[] = {"exposed", "bubble"};
    const json_t *ranks = json_object_get(report, "ranks");
    json_t *drawn;

    CHECK(read_attribute(strstr(dom, "<body"), "data-idle", text, sizeof text), "the page's script did not end");
    drawn = json_loads(text, 0, NULL);
    CHECK(json_is_object(drawn), "the page's body says %s", text);
    for (size_t r = 0; r < json_array_size(ranks); r++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            char drawn_key[64], key[64];
            double shown, expected;

            snprintf(drawn_key, sizeof drawn_key, "%zu %s", r, kinds[k]);
            snprintf(key, sizeof key, "%s_us", kinds[k]);
            shown = json_number_value(json_object_get(drawn, drawn_key));
            expected = number_at(json_array_get(ranks, r), key);
            CHECK(fabs(shown - expected) <= 1e-6 * number_at(report, "mean_step_us"),
                  "rank %zu: %s of %.3f us is drawn: expected %.3f", r, kinds[k], shown, expected);
        }
    }
    json_decref(drawn);
}

static void check_page(const char *report_path, const char *dom_path)
{
    json_t *report = read_json(report_path);
    char *dom = NULL;
    size_t size, shown;

    CHECK(mhp_file_read_all(dom_path, FILE_BYTES_MAX, &dom, &size) == MHP_OK, "%s", mhp_error_text());
    shown = check_shown(report, dom);
    CHECK(shown >= 7 * json_array_size(json_object_get(report, "ranks")), "the page shows %zu figures only", shown);
    check_drawn(report, dom);
    printf("%zu figures are the report's\n", shown);
    mhp_free(dom);
    json_decref(report);
}

int main(int argc, char **argv)
{
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "figures") == 0) {
        check_figures(argv[2], argc == 4 ? atof(argv[3]) : 20);
    } else if (argc == 4 && strcmp(argv[1], "drawn") == 0) {
        check_drawing(argv[2], atof(argv[3]));
    } else if (argc == 3 && strcmp(argv[1], "trace") == 0) {
        check_trace(argv[2], false);
    } else if (argc == 3 && strcmp(argv[1], "nested") == 0) {
        check_trace(argv[2], true);
    } else if ((argc == 4 || argc == 5) && strcmp(argv[1], "records") == 0) {
        check_records(argv[2], atof(argv[3]), argv[4]); /* NULL behind the last */
    } else if (argc == 3 && strcmp(argv[1], "lanes") == 0) {
        check_lanes(argv[2]);
    } else if (argc == 4 && strcmp(argv[1], "power") == 0) {
        check_power(argv[2], atoi(argv[3]));
    } else if (argc == 4 && strcmp(argv[1], "page") == 0) {
        check_page(argv[2], argv[3]);
    } else {
        fprintf(stderr, "usage: check_report figures|trace|nested|records|lanes|power|drawn|page FILE [PERCENT [PERCENT]|CARDS|BYTES|DOM]\n");
        return 2;
    }
    return 0;
}
