/* The grammar of actions and plans as CSV: round trips, what is tolerated, and errors with
 * their place. */
#include <regex.h>
#include <unistd.h>

#include "core/memory.h"
#include "tests/unit/scheduler/support.h"

/* The plan's CSV, released with free. */
static char *written(const mhp_plan *plan)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    assert_non_null(stream);
    assert_int_equal(mhp_plan_write_csv(plan, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static void assert_same_actions(const mhp_plan *a, const mhp_plan *b)
{
    assert_int_equal(a->rank_count, b->rank_count);
    assert_int_equal(a->stage_count, b->stage_count);
    assert_int_equal(a->microbatch_count, b->microbatch_count);
    assert_int_equal(a->forward_only, b->forward_only);
    for (int r = 0; r < a->rank_count; r++) {
        assert_int_equal(a->ranks[r].actions.count, b->ranks[r].actions.count);
        for (size_t i = 0; i < a->ranks[r].actions.count; i++) {
            const mhp_action *x = &a->ranks[r].actions.items[i];
            const mhp_action *y = &b->ranks[r].actions.items[i];

            assert_int_equal(x->kind, y->kind);
            assert_int_equal(x->stage, y->stage);
            assert_int_equal(x->microbatch, y->microbatch);
            assert_int_equal(x->backward_stage, y->backward_stage);
            assert_int_equal(x->backward_microbatch, y->backward_microbatch);
        }
    }
    for (int s = 0; s < a->stage_count; s++) {
        for (int m = 0; m < a->microbatch_count; m++) {
            assert_int_equal(mhp_plan_owner(a, s, m), mhp_plan_owner(b, s, m));
        }
    }
}

/* Every kind with its numbers, so that a kind added later without a text here is noticed. */
static void every_kind_of_action_survives_a_round_trip(void **state)
{
    static const char text[] = "0F0,1B2,2I3,3W4,4SEND_F5,5RECV_F6,6SEND_B7,7RECV_B8,8R9\n"
                               "9REDUCE_GRAD,10UNSHARD,11RESHARD,(0F8;7B0)OVERLAP_F_B\n";
    mhp_plan *plan = parse_csv(text);
    char *again = written(plan);
    bool seen[MHP_ACTION_KIND_COUNT] = {false};

    (void)state;
    assert_string_equal(again, text);
    assert_int_equal(plan->rank_count, 2);
    assert_int_equal(plan->stage_count, 12);
    assert_int_equal(plan->microbatch_count, 10);
    for (int r = 0; r < 2; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            seen[plan->ranks[r].actions.items[i].kind] = true;
        }
    }
    for (int k = 0; k < MHP_ACTION_KIND_COUNT; k++) {
        assert_true(seen[k]);
    }
    free(again);
    mhp_plan_destroy(plan);
}

/* All kinds at the smallest and largest numbers, through format and parse alone. */
static void formatted_actions_parse_to_themselves(void **state)
{
    static const int numbers[][2] = {
        {0, 0}, {9, 10}, {MHP_STAGES_MAX - 1, MHP_MICROBATCHES_MAX - 1}};

    (void)state;
    for (int k = 0; k < MHP_ACTION_KIND_COUNT; k++) {
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
            bool pair = k == MHP_ACTION_OVERLAP_F_B;
            bool alone = k == MHP_ACTION_REDUCE_GRAD || k == MHP_ACTION_UNSHARD ||
                         k == MHP_ACTION_RESHARD;
            mhp_action action = {(mhp_action_kind)k, numbers[n][0], alone ? -1 : numbers[n][1],
                                 pair ? numbers[n][0] : -1, pair ? numbers[n][1] : -1};
            mhp_action again;
            char text[96];
            int length = mhp_action_format(&action, text, sizeof text);

            assert_int_equal(length, strlen(text));
            assert_int_equal(mhp_action_format(&action, NULL, 0), length);
            assert_int_equal(mhp_action_parse(text, &again), MHP_OK);
            assert_memory_equal(&action, &again, sizeof action);
        }
    }
}

static void plans_of_all_schedules_survive_a_round_trip(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int lowered = 0; lowered < 2; lowered++) {
            mhp_plan *plan = generate(mhp_generator_at(g)->name, 4, 10);
            mhp_plan *again = NULL;
            char *text;

            assert_int_equal(lowered ? mhp_plan_lower(plan, NULL) : MHP_OK, MHP_OK);
            text = written(plan);
            again = parse_csv(text);
            assert_same_actions(plan, again);
            assert_int_equal(mhp_plan_validate(again), MHP_OK);
            assert_int_equal(mhp_plan_lower(again, NULL), MHP_OK);
            free(text);
            mhp_plan_destroy(plan);
            mhp_plan_destroy(again);
        }
    }
}

static void forward_only_follows_from_the_cells(void **state)
{
    mhp_plan *forward = parse_csv("0F0,0SEND_F0\n1RECV_F0,1F0\n");
    mhp_plan *training = parse_csv("0F0,0B0\n");

    (void)state;
    assert_true(forward->forward_only);
    assert_false(forward->lowered);
    assert_string_equal(forward->name, "some.csv");
    assert_false(training->forward_only);
    mhp_plan_destroy(forward);
    mhp_plan_destroy(training);
}

/* Bubbles, quotes, blanks, carriage returns and a missing last newline mean nothing. */
static void harmless_variations_are_read_alike(void **state)
{
    static const char *const variants[] = {
        ",0F0,,\"0B0\",\n1F0,1B0\n",
        "0F0,0B0\r\n1F0,1B0\r\n",
        " 0F0 , 0B0 \n1F0,1B0",
        "\"0F0\",\"0B0\"\n,,,1F0,1B0,,,",
        "0F0,0B0\n1F0,1B0\n\n",
        "0F0,0B0\n1F0,1B0\n\r\n \t\n\n",
    };
    mhp_plan *plan = parse_csv("0F0,0B0\n1F0,1B0\n");

    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        mhp_plan *variant = parse_csv(variants[i]);

        assert_same_actions(plan, variant);
        mhp_plan_destroy(variant);
    }
    mhp_plan_destroy(plan);
}

static void a_row_of_empty_cells_is_a_rank_without_work(void **state)
{
    mhp_plan *plan = parse_csv("0F0,0B0\n,\n1F0,1B0\n,\n"), *again;
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_int_equal(plan->rank_count, 4);
    assert_int_equal(plan->ranks[1].actions.count, 0);
    assert_int_equal(mhp_plan_owner(plan, 1, 0), 2);
    assert_int_equal(mhp_plan_write_csv(plan, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
    again = parse_csv(text);
    assert_same_actions(plan, again);
    mhp_plan_destroy(again);
    mhp_plan_destroy(plan);
    free(text);
}

static void owners_follow_from_the_forwards(void **state)
{
    mhp_plan *plan = parse_csv("0F0,1F1,0F1\n1F0,(0F2;1B0)OVERLAP_F_B\n");

    (void)state;
    assert_int_equal(mhp_plan_owner(plan, 0, 0), 0);
    assert_int_equal(mhp_plan_owner(plan, 0, 1), 0);
    assert_int_equal(mhp_plan_owner(plan, 0, 2), 1);
    assert_int_equal(mhp_plan_owner(plan, 1, 0), 1);
    assert_int_equal(mhp_plan_owner(plan, 1, 1), 0);
    assert_int_equal(mhp_plan_owner(plan, 1, 2), -1);
    mhp_plan_destroy(plan);
}

static void assert_text_refused(const char *text, size_t length, const char *place)
{
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_plan_parse_csv("dir/some.csv", text, length, &plan), MHP_ERR_FORMAT);
    assert_null(plan);
    if (strncmp(mhp_error_text(), place, strlen(place)) != 0 ||
        !strstr(mhp_error_text(), "expected")) {
        fail_msg("\"%s\": expected a text that begins with \"%s\" and says what was expected, "
                 "found \"%s\"",
                 text, place, mhp_error_text());
    }
}

static void an_empty_line_is_no_row(void **state)
{
    (void)state;
    assert_text_refused("0F0,0B0\n\n1F0,1B0\n", 18, "dir/some.csv:2: an empty line");
    assert_text_refused("\r\n0F0,0B0\n", 10, "dir/some.csv:1: an empty line");
}

static void bad_cells_are_named_with_their_place(void **state)
{
    static const char *const cells[] = {
        "F0",          "3",           "3F",         "3F-1",          "-3F0",
        "3f0",         "3FF0",        "3F0x",       "3F0 1",         "3X0",
        "3SEND0",      "3SEND_F",     "3SENDF0",    "3REDUCE_GRAD1", "REDUCE_GRAD",
        "3OVERLAP_F_B0", "(0F8;7B0)", "(0F8,7B0)OVERLAP_F_B", "(0B8;7B0)OVERLAP_F_B",
        "(0F8;7F0)OVERLAP_F_B", "(0F8;7B0)OVERLAP_F_B1", "(", "(0", "(0F", "(0F8;", "()",
        "3F0x0",       "3 F0",        "3F 0",       "+3F0",          "3F+0",
        "0x1F0",       "3F1.5",       "4096F0",     "0F65536",       "99999999999999999999F0",
        "0F99999999999999999999", "(4096F0;0B0)OVERLAP_F_B", "(0F0;0B65536)OVERLAP_F_B",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
        bool split = strchr(cells[i], ',') != NULL;
        char text[128];
        int length = snprintf(text, sizeof text, "0F0,0B0\n1F0,,%s,1B0\n", cells[i]);

        assert_text_refused(text, (size_t)length, "dir/some.csv:2: cell 3: ");
        assert_true(split || strstr(mhp_error_text(), cells[i]));
    }
}

static void the_first_bad_cell_is_named(void **state)
{
    (void)state;
    assert_text_refused("0F0,?\n!\n", 8, "dir/some.csv:1: cell 2: ");
    assert_text_refused("stage\n0F0\n", 10, "dir/some.csv:1: cell 1: ");
}

static void overlong_and_binary_cells_are_refused(void **state)
{
    char text[4096];

    (void)state;
    memset(text, '7', sizeof text);
    memcpy(text, "0F0,0F1,", 8);
    assert_text_refused(text, sizeof text, "dir/some.csv:1: cell 3: ");
    assert_non_null(strstr(mhp_error_text(), "4088"));
    assert_text_refused("0F0\n0F1\0\n", 9, "dir/some.csv:2: cell 1: ");
    assert_text_refused("\xff\xfe\x30", 3, "dir/some.csv:1: cell 1: ");
}

static void files_without_actions_are_refused(void **state)
{
    static const char *const texts[] = {"", "\n", ",,,\n,,\n", " \"\" \r\n", "\n\n\n"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_text_refused(texts[i], strlen(texts[i]), "dir/some.csv: ");
    }
}

static void more_rows_than_ranks_are_refused(void **state)
{
    enum { ROWS = MHP_RANKS_MAX + 1 };
    static char text[ROWS * 4 + 1];
    mhp_plan *plan = NULL;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        memcpy(text + i * 4, "0F0\n", 4);
    }
    assert_int_equal(mhp_plan_parse_csv("some.csv", text, ROWS * 4, &plan), MHP_ERR_LIMIT);
    assert_null(plan);
    assert_non_null(strstr(mhp_error_text(), "some.csv:1025: "));
    assert_non_null(strstr(mhp_error_text(), "1024"));
    assert_int_equal(mhp_plan_parse_csv("some.csv", text, MHP_RANKS_MAX * 4, &plan), MHP_OK);
    assert_int_equal(plan->rank_count, MHP_RANKS_MAX);
    mhp_plan_destroy(plan);
}

/* A short file may not ask for memory of the size of all stages and micro-batches. */
static void numbers_without_actions_are_refused(void **state)
{
    static const char text[] = "0F0,4095F65535\n";

    (void)state;
    assert_text_refused(text, sizeof text - 1, "dir/some.csv: 2 forwards");
    assert_non_null(strstr(mhp_error_text(), "268435456"));
}

static void assert_reads(const char *text, const char *same)
{
    mhp_plan *plan = parse_csv(text);
    mhp_plan *expected = parse_csv(same);

    assert_same_actions(plan, expected);
    assert_int_equal(mhp_plan_validate(plan), MHP_OK);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(expected);
}

/* BW is full and B the input gradient; without a BW, if every B has a W and there is no I. */
static void older_files_are_recognised(void **state)
{
    (void)state;
    assert_reads("0F0,0F1,0BW0,0BW1\n", "0F0,0F1,0B0,0B1\n");
    assert_reads("0F0,0F1,0B0,0BW1,0W0\n", "0F0,0F1,0I0,0B1,0W0\n");
    assert_reads("0F0,0F1,0B0,0B1,0W0,0W1\n", "0F0,0F1,0I0,0I1,0W0,0W1\n");
    assert_reads("0F0,0SEND_F0,0RECV_B0,0BW0\n1RECV_F0,1F0,1B0,1SEND_B0,1W0\n",
                 "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1I0,1SEND_B0,1W0\n");
}

static void files_of_two_readings_are_refused(void **state)
{
    static const char *const texts[][2] = {
        {"0F0,0F1,0BW0,0I1,0W1\n", "dir/some.csv:1: 0I1 beside a BW in line 1: "},
        {"0F0,(0F1;0B0)OVERLAP_F_B\n1F0,1F1,1BW0,1BW1\n",
         "dir/some.csv:1: (0F1;0B0)OVERLAP_F_B beside a BW in line 2: "},
        {"0F0,0F1,0B0,0W0,0B1\n", "dir/some.csv: 0B0 has a W and 0B1 has none: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_text_refused(texts[i][0], strlen(texts[i][0]), texts[i][1]);
    }
}

static void torch_without_a_meaning_here_does_nothing(void **state)
{
    mhp_plan *plan = parse_csv("0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD,\r\n1UNSHARD,,1F0,1B0,1REDUCE_GRAD,1RESHARD\r\n");
    mhp_plan *forward = parse_csv("0UNSHARD,0F0,0RESHARD\n");

    (void)state;
    assert_int_equal(mhp_plan_lower(plan, NULL), MHP_OK);
    assert_true(forward->forward_only);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(forward);
}

/* ---- what torch.distributed.pipelining asks of a file ---- */

enum { TORCH_STAGES = 16, TORCH_MICROBATCHES = 32 };

/* As its checks count: which passes of (stage, micro-batch) have been seen, and the stage's rank. */
typedef struct torch_file {
    regex_t action;
    bool seen[128][TORCH_STAGES][TORCH_MICROBATCHES];
    int rank_of[TORCH_STAGES];
    int stages, microbatches;
} torch_file;

/* [stage][operation][micro-batch], as the expression that its loader matches cells with. */
static void open_torch(torch_file *file)
{
    memset(file, 0, sizeof *file);
    memset(file->rank_of, 0xff, sizeof file->rank_of);
    assert_int_equal(regcomp(&file->action,
                             "^([0-9]+)(F|I|B|W|UNSHARD|RESHARD|REDUCE_GRAD|SEND_F|RECV_F|SEND_B|"
                             "RECV_B)([0-9]*)$",
                             REG_EXTENDED), 0);
}

/* One action: F before I or B, I before W, a stage on one rank. */
static void load_torch_action(torch_file *file, int rank, const char *text)
{
    regmatch_t parts[4];
    const char *word = text;
    int stage, microbatch;
    size_t length;

    if (regexec(&file->action, text, 4, parts, 0) != 0) {
        fail_msg("torch does not read \"%s\"", text);
    }
    stage = atoi(text);
    word += parts[2].rm_so;
    length = (size_t)(parts[2].rm_eo - parts[2].rm_so);
    microbatch = parts[3].rm_eo > parts[3].rm_so ? atoi(text + parts[3].rm_so) : -1;
    assert_int_equal(microbatch < 0, memchr(word, 'A', length) != NULL);    /* (RE|UN)SHARD, GRAD */
    assert_in_range(stage, 0, file->stages - 1);
    assert_true(file->rank_of[stage] < 0 || file->rank_of[stage] == rank);
    file->rank_of[stage] = rank;
    if (length > 1) {
        return;
    }
    assert_in_range(microbatch, 0, file->microbatches - 1);
    assert_false(file->seen[(int)*word][stage][microbatch]);
    assert_true(*word == 'F' || file->seen['F'][stage][microbatch]);
    assert_true(*word != 'W' || file->seen['I'][stage][microbatch]);
    file->seen[(int)*word][stage][microbatch] = true;
}

static void load_torch_cell(torch_file *file, int rank, char *cell)
{
    char *close = strchr(cell, ')');

    if (*cell != '(') {
        load_torch_action(file, rank, cell);
        return;
    }
    assert_non_null(close);
    assert_string_equal(close + 1, "OVERLAP_F_B");
    *close = '\0';
    for (char *half = strtok(cell + 1, ";"); half; half = strtok(NULL, ";")) {
        load_torch_action(file, rank, half);
    }
}

/* F of all, and of each stage as many B, and halves of I and W, as there are micro-batches. */
static void assert_torch_complete(const torch_file *file)
{
    for (int s = 0; s < file->stages; s++) {
        int counts[128] = {0};

        for (int m = 0; m < file->microbatches; m++) {
            for (int word = 'A'; word <= 'Z'; word++) {
                counts[word] += file->seen[word][s][m];
            }
        }
        assert_int_equal(counts['F'], file->microbatches);
        assert_int_equal(counts['I'], counts['W']);
        assert_int_equal(counts['B'] + counts['I'], file->microbatches);
    }
}

static void assert_torch_loads(const mhp_plan *plan)
{
    static torch_file file;
    char *text = NULL, *rest = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    int rank = 0;

    assert_non_null(stream);
    assert_int_equal(mhp_plan_write_csv_as(plan, MHP_CSV_TORCH, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
    open_torch(&file);
    file.stages = plan->stage_count;
    file.microbatches = plan->microbatch_count;
    for (char *row = text; *row; row = rest, rank++) {
        char *end = strchr(row, '\n');

        assert_non_null(end);
        *end = '\0';
        rest = end + 1;
        for (char *cell = row; cell; cell = end) {
            end = strchr(cell, ',');
            if (end) {
                *end++ = '\0';
            }
            load_torch_cell(&file, rank, cell);
        }
    }
    assert_int_equal(rank, plan->rank_count);
    assert_torch_complete(&file);
    regfree(&file.action);
    free(text);
}

static void torch_loads_what_is_written_for_it(void **state)
{
    int files = 0;

    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int p = 1; p <= 4; p++) {
            for (int m = 2 * p; m <= 12; m++) {
                for (int lowered = 0; lowered < 2; lowered++) {
                    const char *name = mhp_generator_at(g)->name;
                    mhp_lower_params params = {.rebuild = true};
                    mhp_plan *plan;

                    if (strcmp(name, "dualpipe") == 0 || !takes_shape(name, p, m, 2)) {
                        continue;
                    }
                    plan = generate(name, p, m);
                    if (lowered) {
                        lower_plan(plan, &params);
                    }
                    assert_torch_loads(plan);
                    files++;
                    mhp_plan_destroy(plan);
                }
            }
        }
    }
    assert_true(files > 100);
}

static void what_torch_has_no_words_for_is_refused(void **state)
{
    mhp_plan *both = generate("dualpipe", 4, 8);
    mhp_plan *forward = generate_either("1f1b", 2, 4, true);
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_int_equal(mhp_plan_write_csv_as(both, MHP_CSV_TORCH, stream), MHP_ERR_UNSUPPORTED);
    assert_non_null(strstr(mhp_error_text(), "stage 0 is on rank 0 and on rank 3"));
    assert_int_equal(mhp_plan_write_csv_as(forward, MHP_CSV_TORCH, stream), MHP_ERR_UNSUPPORTED);
    assert_non_null(strstr(mhp_error_text(), "backward"));
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(size, 0);
    free(text);
    mhp_plan_destroy(both);
    mhp_plan_destroy(forward);
}

/* A file of our own; the caller unlinks it. */
static void write_file(char path[64], const char *text)
{
    int descriptor;
    FILE *stream;

    snprintf(path, 64, "/tmp/test_csv_XXXXXX");
    descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    stream = fdopen(descriptor, "w");
    assert_non_null(stream);
    fputs(text, stream);
    assert_int_equal(fclose(stream), 0);
}

static void files_are_read_and_named(void **state)
{
    mhp_plan *plan = NULL;
    char path[64];
    char place[96];

    (void)state;
    write_file(path, "0F0,0B0\n1F0,1B0\n");
    assert_int_equal(mhp_plan_read_csv(path, &plan), MHP_OK);
    assert_int_equal(plan->rank_count, 2);
    assert_string_equal(plan->name, strrchr(path, '/') + 1);
    mhp_plan_destroy(plan);
    plan = NULL;
    unlink(path);
    assert_int_equal(mhp_plan_read_csv(path, &plan), MHP_ERR_NOT_FOUND);
    assert_non_null(strstr(mhp_error_text(), path));
    write_file(path, "0F0,0B0\n1F0,1Q0\n");
    assert_int_equal(mhp_plan_read_csv(path, &plan), MHP_ERR_FORMAT);
    unlink(path);
    snprintf(place, sizeof place, "%s:2: cell 2: ", path);
    assert_memory_equal(mhp_error_text(), place, strlen(place));
    assert_null(plan);
}

/* 100 MB of cells, written as a hole in the file: its size alone is refused. */
static void files_beyond_the_limit_are_refused(void **state)
{
    mhp_plan *plan = NULL;
    char path[64];

    (void)state;
    write_file(path, "0F0,0B0\n");
    assert_int_equal(truncate(path, 100 * 1000 * 1000), 0);
    assert_int_equal(mhp_plan_read_csv(path, &plan), MHP_ERR_LIMIT);
    unlink(path);
    assert_null(plan);
    assert_non_null(strstr(mhp_error_text(), path));
    assert_non_null(strstr(mhp_error_text(), "67108864"));
}

static void a_full_disk_is_an_error(void **state)
{
    mhp_schedule_shape shape = {.ranks = 8, .microbatches = 64};
    mhp_plan *plan = NULL;
    FILE *stream = fopen("/dev/full", "w");

    (void)state;
    if (!stream) {
        skip();
    }
    setvbuf(stream, NULL, _IONBF, 0);
    assert_int_equal(mhp_schedule_generate("dualpipe", &shape, &plan), MHP_OK);
    assert_int_equal(mhp_plan_write_csv(plan, stream), MHP_ERR_IO);
    fclose(stream);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_action_survives_a_round_trip),
        cmocka_unit_test(formatted_actions_parse_to_themselves),
        cmocka_unit_test(plans_of_all_schedules_survive_a_round_trip),
        cmocka_unit_test(forward_only_follows_from_the_cells),
        cmocka_unit_test(harmless_variations_are_read_alike),
        cmocka_unit_test(a_row_of_empty_cells_is_a_rank_without_work),
        cmocka_unit_test(an_empty_line_is_no_row),
        cmocka_unit_test(owners_follow_from_the_forwards),
        cmocka_unit_test(bad_cells_are_named_with_their_place),
        cmocka_unit_test(the_first_bad_cell_is_named),
        cmocka_unit_test(overlong_and_binary_cells_are_refused),
        cmocka_unit_test(files_without_actions_are_refused),
        cmocka_unit_test(more_rows_than_ranks_are_refused),
        cmocka_unit_test(numbers_without_actions_are_refused),
        cmocka_unit_test(older_files_are_recognised),
        cmocka_unit_test(files_of_two_readings_are_refused),
        cmocka_unit_test(torch_without_a_meaning_here_does_nothing),
        cmocka_unit_test(torch_loads_what_is_written_for_it),
        cmocka_unit_test(what_torch_has_no_words_for_is_refused),
        cmocka_unit_test(files_beyond_the_limit_are_refused),
        cmocka_unit_test(files_are_read_and_named),
        cmocka_unit_test(a_full_disk_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
