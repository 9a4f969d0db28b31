/* Pictures: the layout holds every action where the simulation has it, and the renderers lose none of it. */
#include "tests/unit/scheduler/plans.h"

#include <jansson.h>
#include <math.h>

#include "scheduler/draw.h"
#include "scheduler/report.h"

typedef mhp_status (*draw_fn)(const mhp_drawing *drawing, FILE *stream);

typedef struct picture {
    mhp_plan *plan;
    mhp_costs costs;
    mhp_simulation simulation;
    mhp_drawing drawing;
} picture;

/* Takes the plan. */
static void open_picture(mhp_plan *plan, const mhp_costs *costs, bool arrows, picture *out)
{
    mhp_draw_params params;

    out->plan = plan;
    assert_ok(costs ? MHP_OK : mhp_costs_default(&out->costs));
    if (costs) {
        out->costs = *costs;
    }
    assert_ok(mhp_simulate(plan, &(mhp_simulate_params){.costs = &out->costs}, &out->simulation));
    params = (mhp_draw_params){plan, &out->costs, &out->simulation, "", arrows};
    assert_ok(mhp_draw(&params, &out->drawing));
}

static void close_picture(picture *p)
{
    mhp_drawing_release(&p->drawing);
    mhp_simulation_release(&p->simulation);
    mhp_costs_release(&p->costs);
    mhp_plan_destroy(p->plan);
}

static void render(const mhp_drawing *drawing, draw_fn draw, char **text_out)
{
    size_t size = 0;
    FILE *stream = open_memstream(text_out, &size);

    assert_non_null(stream);
    assert_ok(draw(drawing, stream));
    assert_int_equal(fclose(stream), 0);
}

static size_t count(const char *text, const char *part)
{
    size_t found = 0;

    for (; (text = strstr(text, part)); text++) {
        found++;
    }
    return found;
}

/* Actions that take time, a pair as two. */
static size_t boxes_of(const mhp_plan *plan)
{
    size_t found = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            const mhp_action *action = &plan->ranks[r].actions.items[i];

            found += mhp_action_takes_time(action) + (action->kind == MHP_ACTION_OVERLAP_F_B);
        }
    }
    return found;
}

static size_t actions_of(const mhp_plan *plan, mhp_action_kind kind)
{
    size_t found = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            found += plan->ranks[r].actions.items[i].kind == kind;
        }
    }
    return found;
}

/* ---- layout ---- */

/* The boxes of a rank part its busy time without overlapping; a pair's two halves are its time. */
static void assert_boxes(const picture *p)
{
    size_t i = 0;

    assert_int_equal(p->drawing.box_count, boxes_of(p->plan));
    assert_int_equal(p->drawing.frame_count, actions_of(p->plan, MHP_ACTION_OVERLAP_F_B));
    for (int r = 0; r < p->plan->rank_count; r++) {
        double end_us = 0, busy_us = 0;

        for (; i < p->drawing.box_count && p->drawing.boxes[i].rank == r; i++) {
            const mhp_draw_box *box = &p->drawing.boxes[i];

            assert_true(box->start_us >= end_us - 1e-9);
            assert_int_equal(mhp_plan_owner(p->plan, box->stage, box->microbatch), r);
            end_us = box->end_us;
            busy_us += box->end_us - box->start_us;
        }
        assert_true(fabs(busy_us - p->simulation.ranks[r].busy_us) < 1e-6);
    }
    assert_int_equal(i, p->drawing.box_count);
}

static void test_boxes_are_the_simulation(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        picture p;

        open_picture(lowered(mhp_generator_at(g)->name, 4, 12), NULL, true, &p);
        assert_boxes(&p);
        assert_int_equal(p.drawing.arrow_count,
                         actions_of(p.plan, MHP_ACTION_SEND_F) + actions_of(p.plan, MHP_ACTION_SEND_B));
        for (size_t i = 0; i < p.drawing.arrow_count; i++) {
            assert_true(p.drawing.arrows[i].from_rank != p.drawing.arrows[i].to_rank);
        }
        close_picture(&p);
    }
}

static void test_shades_tell_directions_apart(void **state)
{
    picture p;

    (void)state;
    open_picture(generate("dualpipe", 4, 8), NULL, false, &p);
    for (size_t i = 0; i < p.drawing.box_count; i++) {
        assert_int_equal(p.drawing.boxes[i].shade, p.drawing.boxes[i].microbatch >= 4);
    }
    assert_contains(p.drawing.shades, "micro-batches from one end");
    close_picture(&p);
    open_picture(generate("dualpipev", 4, 8), NULL, false, &p);
    for (size_t i = 0; i < p.drawing.box_count; i++) {
        assert_int_equal(p.drawing.boxes[i].shade, p.drawing.boxes[i].stage >= 4);
    }
    assert_contains(p.drawing.shades, "stages of a rank");
    close_picture(&p);
    open_picture(generate("1f1b", 4, 8), NULL, false, &p);
    assert_string_equal(p.drawing.shades, "");
    close_picture(&p);
}

static void test_the_curve_is_what_a_rank_keeps(void **state)
{
    picture p;
    dice d = {.seed = 21};
    mhp_costs costs;

    (void)state;
    open_picture(lowered("1f1b", 4, 8), NULL, false, &p);
    assert_false(p.drawing.curve_is_bytes);
    for (int r = 0; r < 4; r++) {
        const mhp_draw_curve *curve = &p.drawing.curves[r];

        assert_true(curve->peak == p.simulation.ranks[r].activations_peak);
        assert_true(curve->points[0].value == 0 && curve->points[curve->count - 1].value == 0);
        for (size_t i = 1; i < curve->count; i++) {
            assert_true(curve->points[i].time_us >= curve->points[i - 1].time_us);
        }
    }
    close_picture(&p);
    random_costs(&d, 4, 4, &costs);
    open_picture(lowered("dualpipe", 4, 12), &costs, false, &p);
    assert_true(p.drawing.curve_is_bytes);
    for (int r = 0; r < 4; r++) {
        const mhp_draw_curve *curve = &p.drawing.curves[r];

        assert_true(curve->peak == (double)p.simulation.ranks[r].bytes_peak);
        assert_true(curve->points[curve->count - 1].value == (double)p.simulation.ranks[r].bytes_base);
    }
    close_picture(&p);
}

static void test_ticks(void **state)
{
    picture p;

    (void)state;
    open_picture(generate("1f1b", 4, 8), NULL, false, &p);
    assert_int_equal(p.drawing.tick_count, 4); /* 0, 10, 20, 30 of 33 */
    assert_string_equal(p.drawing.ticks[3].label, "30");
    close_picture(&p);
}

/* ---- text ---- */

static bool takes_a_cell(const mhp_action *action)
{
    return mhp_action_takes_time(action);
}

/* What the picture may call the action: a pair names its halves. */
static void expected_text(const mhp_action *action, char text[64])
{
    if (action->kind == MHP_ACTION_OVERLAP_F_B) {
        snprintf(text, 64, "%dF%d+%dB%d", action->stage, action->microbatch, action->backward_stage,
                 action->backward_microbatch);
    } else {
        mhp_action_format(action, text, 64);
    }
}

static void assert_row(char *text, int rank, const mhp_action_list *list)
{
    char begin[64], *row, *rest = NULL;
    size_t next = 0;

    snprintf(begin, sizeof begin, "\nrank %-3d ", rank);
    row = strstr(text, begin);
    assert_non_null(row);
    row += strlen(begin);
    row[strcspn(row, "\n")] = '\0';
    for (char *word = strtok_r(row, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char expected[64];

        if (strcmp(word, ".") == 0) {
            continue;
        }
        while (next < list->count && !takes_a_cell(&list->items[next])) {
            next++;
        }
        assert_true(next < list->count);
        expected_text(&list->items[next++], expected);
        assert_string_equal(word, expected);
    }
    while (next < list->count) {
        assert_false(takes_a_cell(&list->items[next++]));
    }
}

static void test_every_compute_action_is_in_its_row_once(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int p = 2; p <= 12; p += 5) {
            picture pictures[2];
            mhp_plan *forward = NULL;

            open_picture(lowered(mhp_generator_at(g)->name, p + p % 2, 2 * p + 4), NULL, false, &pictures[0]);
            assert_ok(mhp_schedule_forward_only(pictures[0].plan, 2 * p + 4, &forward));
            open_picture(forward, NULL, false, &pictures[1]);
            for (int i = 0; i < 2; i++) {
                for (int r = 0; r < pictures[i].plan->rank_count; r++) {
                    char *text = NULL;

                    render(&pictures[i].drawing, mhp_draw_ascii, &text);
                    assert_row(text, r, &pictures[i].plan->ranks[r].actions);
                    free(text);
                }
                close_picture(&pictures[i]);
            }
        }
    }
}

/* Uneven times: nothing is lost, and columns are in the order of time. */
static void test_uneven_times_as_text(void **state)
{
    static const char yaml[] =
        "stages: [{forward_us: 1, input_gradient_us: 1.5, weight_gradient_us: 0.6, pair_us: 2.5}]\noptimizer_us: 2\n";
    mhp_costs costs;
    picture p;
    char *text = NULL;

    (void)state;
    assert_ok(mhp_costs_parse("c.yaml", yaml, strlen(yaml), &costs));
    open_picture(lowered("dualpipe", 2, 4), &costs, false, &p);
    render(&p.drawing, mhp_draw_ascii, &text);
    assert_contains(text, "0F0");
    assert_contains(text, "0I1");
    assert_int_equal(count(text, "opt"), 2);
    assert_int_equal(count(text, "+"), p.drawing.frame_count);
    free(text);
    close_picture(&p);
}

/* ---- SVG and HTML ---- */

static void test_svg(void **state)
{
    picture p;
    char *text = NULL;

    (void)state;
    open_picture(lowered("dualpipe", 8, 20), NULL, true, &p);
    render(&p.drawing, mhp_draw_svg, &text);
    assert_int_equal(strncmp(text, "<svg xmlns=", 11), 0);
    assert_string_equal(text + strlen(text) - 7, "</svg>\n");
    assert_int_equal(count(text, "class=\"cell "), boxes_of(p.plan));
    assert_int_equal(count(text, "class=\"frame\""), actions_of(p.plan, MHP_ACTION_OVERLAP_F_B));
    assert_int_equal(count(text, "class=\"arrow"), p.drawing.arrow_count);
    assert_int_equal(count(text, "<g"), count(text, "</g>"));
    assert_int_equal(count(text, "<text"), count(text, "</text>"));
    assert_contains(text, ">dualpipe: 8 ranks, 8 stages, 20 micro-batches</text>");
    assert_int_equal(count(text, ">9.1 %</text>"), 8);
    free(text);
    close_picture(&p);
}

static void test_html_stands_alone(void **state)
{
    picture p;
    char *text = NULL;

    (void)state;
    open_picture(lowered("dualpipev", 4, 10), NULL, false, &p);
    render(&p.drawing, mhp_draw_html, &text);
    assert_int_equal(count(text, "class=\"cell "), boxes_of(p.plan));
    assert_int_equal(count(text, "data-d=\""), boxes_of(p.plan));
    assert_int_equal(count(text, "class=\"curve\""), 4);
    assert_int_equal(count(text, "http"), 1); /* the SVG name space */
    assert_null(strstr(text, "src="));
    assert_null(strstr(text, "<link"));
    assert_contains(text, "data-d=\"0F0: forward, stage 0, micro-batch 0|0|");
    free(text);
    close_picture(&p);
}

/* A name from a file may hold anything. */
static void test_names_are_escaped(void **state)
{
    picture p;
    char *text = NULL;
    mhp_plan *plan = generate("1f1b", 2, 2);

    (void)state;
    snprintf(plan->name, sizeof plan->name, "<script>\"a\"&\n");
    open_picture(plan, NULL, false, &p);
    render(&p.drawing, mhp_draw_html, &text);
    assert_int_equal(count(text, "<script>"), 1);
    assert_int_equal(count(text, "&lt;script&gt;&quot;a&quot;&amp;"), 2);
    free(text);
    close_picture(&p);
}

/* ---- JSON ---- */

static void test_json_reads_back(void **state)
{
    mhp_plan *plan = lowered("dualpipe", 4, 8);
    mhp_costs costs;
    mhp_plan_report report;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    json_t *root, *actions;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    assert_ok(mhp_plan_report_create(plan, &(mhp_simulate_params){.costs = &costs}, "", &report));
    assert_non_null(stream);
    assert_ok(mhp_report_write_json(&report, stream));
    assert_int_equal(fclose(stream), 0);
    root = json_loads(text, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "plan"), "microbatches")), 8);
    assert_true(json_real_value(json_object_get(json_object_get(root, "simulation"), "makespan_us")) ==
                report.simulation.makespan_us);
    for (int r = 0; r < 4; r++) {
        actions = json_object_get(json_array_get(json_object_get(root, "ranks"), (size_t)r), "actions");
        assert_int_equal(json_array_size(actions), plan->ranks[r].actions.count);
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            const json_t *found = json_array_get(actions, i);
            char expected[96];

            mhp_action_format(&plan->ranks[r].actions.items[i], expected, sizeof expected);
            assert_string_equal(json_string_value(json_array_get(found, 0)), expected);
            assert_true(json_real_value(json_array_get(found, 1)) == report.simulation.ranks[r].spans[i].start_us);
        }
    }
    assert_int_equal(json_array_size(json_object_get(root, "critical_path")), report.simulation.path_count);
    json_decref(root);
    free(text);
    mhp_plan_report_release(&report);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_full_disks_are_errors(void **state)
{
    static const draw_fn renderers[] = {mhp_draw_ascii, mhp_draw_svg, mhp_draw_html};
    picture p;

    (void)state;
    open_picture(lowered("1f1b", 4, 12), NULL, false, &p);
    for (size_t i = 0; i < sizeof renderers / sizeof *renderers; i++) {
        FILE *stream = fopen("/dev/full", "w");

        if (stream) {
            setvbuf(stream, NULL, _IONBF, 0);
            assert_int_equal(renderers[i](&p.drawing, stream), MHP_ERR_IO);
            fclose(stream);
        }
    }
    close_picture(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boxes_are_the_simulation),
        cmocka_unit_test(test_shades_tell_directions_apart),
        cmocka_unit_test(test_the_curve_is_what_a_rank_keeps),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_every_compute_action_is_in_its_row_once),
        cmocka_unit_test(test_uneven_times_as_text),
        cmocka_unit_test(test_svg),
        cmocka_unit_test(test_html_stands_alone),
        cmocka_unit_test(test_names_are_escaped),
        cmocka_unit_test(test_json_reads_back),
        cmocka_unit_test(test_full_disks_are_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
