/* Samples: order, parts, borders of documents, blending, and tokens that do not fit. */
#include "runtime/data/indexed.h"
#include "runtime/data/sampler.h"
#include "tests/unit/runtime/folder.h"

enum { LENGTH = 8, VOCABULARY = 60000, DOCUMENTS = 40, DOCUMENT_ROOM = 100, END = 59999 };

typedef struct window {
    int32_t tokens[LENGTH], targets[LENGTH], starts[LENGTH];
} window;

/* Document d has 1 + (d * 7) % 23 tokens and holds base + d * DOCUMENT_ROOM + 0, 1, ...: a token
 * says where it stands. */
static int document_tokens(int document)
{
    return 1 + document * 7 % 23;
}

static int all_tokens(void)
{
    int count = 0;

    for (int d = 0; d < DOCUMENTS; d++) {
        count += document_tokens(d);
    }
    return count;
}

static void write_source(const char *name, int base)
{
    mhp_indexed_writer *writer = NULL;

    assert_ok(mhp_indexed_create(test_path(name), &writer));
    for (int d = 0; d < DOCUMENTS; d++) {
        for (int t = 0; t < document_tokens(d); t++) {
            uint16_t token = (uint16_t)(base + d * DOCUMENT_ROOM + t);

            assert_ok(mhp_indexed_append(writer, &token, 1));
        }
        assert_ok(mhp_indexed_end_document(writer));
    }
    assert_ok(mhp_indexed_finish(writer));
}

static mhp_data_params params_of(char **paths, size_t count, double held_out)
{
    return (mhp_data_params){
        .path = {paths, count}, .split = {held_out}, .end_of_document = -1};
}

static mhp_dataset *open_data(const mhp_data_params *params, uint64_t seed)
{
    mhp_dataset *dataset = NULL;

    assert_ok(mhp_dataset_open(params, LENGTH, seed, VOCABULARY, &dataset));
    return dataset;
}

/* A dataset over the one file "a". */
static mhp_dataset *open_one(double held_out, bool cross, int64_t end, uint64_t seed)
{
    char *paths[] = {test_path("a")};
    mhp_data_params params = params_of(paths, 1, held_out);

    write_source("a", 0);
    params.cross_documents = cross;
    params.end_of_document = end;
    return open_data(&params, seed);
}

static window sample_of(const mhp_dataset *dataset, mhp_data_split split, uint64_t sample)
{
    window out;

    memset(&out, 0x5a, sizeof out);
    assert_ok(mhp_dataset_sample(dataset, split, sample, out.tokens, out.targets, out.starts));
    return out;
}

static void samples_depend_on_seed_and_number_alone(void **state)
{
    mhp_dataset *a = open_one(0, false, -1, 5), *b = open_one(0, false, -1, 5);
    mhp_dataset *other = open_one(0, false, -1, 6);
    int unlike = 0;

    (void)state;
    for (uint64_t i = 0; i < 300; i++) {
        window of_b = sample_of(b, MHP_SPLIT_TRAIN, 299 - i);
        window of_a = sample_of(a, MHP_SPLIT_TRAIN, 299 - i);
        window again = sample_of(a, MHP_SPLIT_TRAIN, i);
        window of_other = sample_of(other, MHP_SPLIT_TRAIN, i);

        assert_memory_equal(&of_a, &of_b, sizeof of_a);
        unlike += memcmp(&again, &of_other, sizeof again) != 0;
    }
    assert_true(unlike > 250);
    mhp_dataset_close(a);
    mhp_dataset_close(b);
    mhp_dataset_close(other);
}

/* Counts the tokens of samples first .. end - 1, without what pads: that repeats the number of its
 * place as the start of its document and has no target; here only a token 0 can be either. */
static void count_tokens(const mhp_dataset *dataset, mhp_data_split split, uint64_t first,
                         uint64_t end, int *seen)
{
    for (uint64_t i = first; i < end; i++) {
        window got = sample_of(dataset, split, i);

        for (int t = 0; t < LENGTH; t++) {
            seen[got.tokens[t]]++;
        }
    }
}

static void an_epoch_has_every_window_once(void **state)
{
    static int seen[VOCABULARY];
    mhp_dataset *dataset = open_one(0, false, -1, 3);
    uint64_t epoch = mhp_dataset_epoch(dataset, 0);
    int padding = (int)epoch * LENGTH - all_tokens();

    (void)state;
    assert_int_equal(epoch, (all_tokens() + LENGTH - 1) / LENGTH);
    for (uint64_t e = 0; e < 3; e++) {
        memset(seen, 0, sizeof seen);
        count_tokens(dataset, MHP_SPLIT_TRAIN, e * epoch, (e + 1) * epoch, seen);
        assert_int_equal(seen[0], 1 + padding);
        for (int token = 1; token < DOCUMENTS * DOCUMENT_ROOM; token++) {
            bool there = token % DOCUMENT_ROOM < document_tokens(token / DOCUMENT_ROOM);

            assert_int_equal(seen[token], there);
        }
    }
    mhp_dataset_close(dataset);
}

static void borders_are_obeyed(void **state)
{
    mhp_dataset *dataset = open_one(0, false, -1, 3);
    int padded = 0;

    (void)state;
    for (uint64_t i = 0; i < mhp_dataset_epoch(dataset, 0); i++) {
        window got = sample_of(dataset, MHP_SPLIT_TRAIN, i);
        bool pads = false;

        for (int t = 0; t < LENGTH; t++) {
            int document = got.tokens[t] / DOCUMENT_ROOM, place = got.tokens[t] % DOCUMENT_ROOM;
            bool last = place + 1 == document_tokens(document);
            int start = place < t ? t - place : 0;

            /* a second token 0 behind another token is what pads */
            pads = pads || (got.tokens[t] == 0 && t + 1 < LENGTH && got.tokens[t + 1] == 0) ||
                   (got.tokens[t] == 0 && t + 1 == LENGTH && got.starts[t] < t);
            if (pads) {
                padded++;
                assert_int_equal(got.tokens[t], 0);
                assert_int_equal(got.targets[t], MHP_DATA_MASKED);
                continue;
            }
            assert_int_equal(got.targets[t], last ? MHP_DATA_MASKED : got.tokens[t] + 1);
            assert_int_equal(got.starts[t], start);
        }
    }
    assert_true(padded < LENGTH);
    mhp_dataset_close(dataset);
}

static void the_last_window_is_padded(void **state)
{
    static const uint16_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    char *paths[] = {test_path("p")};
    mhp_data_params params = params_of(paths, 1, 0);
    mhp_indexed_writer *writer = NULL;

    (void)state;
    assert_ok(mhp_indexed_create(paths[0], &writer));
    assert_ok(mhp_indexed_append(writer, tokens, 11));
    assert_ok(mhp_indexed_finish(writer));
    for (int cross = 0; cross < 2; cross++) {
        mhp_dataset *dataset;

        params.cross_documents = cross;
        dataset = open_data(&params, 1);
        assert_int_equal(mhp_dataset_epoch(dataset, 0), 2);
        for (uint64_t i = 0; i < 2; i++) {
            window got = sample_of(dataset, MHP_SPLIT_TRAIN, i);
            int first = got.tokens[0] == 1 ? 1 : 9;

            for (int t = 0; t < LENGTH; t++) {
                bool pads = first + t > 11;

                assert_int_equal(got.tokens[t], pads ? 0 : first + t);
                assert_int_equal(got.targets[t], first + t < 11 ? first + t + 1 : MHP_DATA_MASKED);
                assert_int_equal(got.starts[t], pads && !cross ? 3 : 0);
            }
        }
        mhp_dataset_close(dataset);
    }
}

static void documents_may_be_crossed(void **state)
{
    mhp_dataset *dataset = open_one(0, true, -1, 3);
    int masked = 0;

    (void)state;
    for (uint64_t i = 0; i < mhp_dataset_epoch(dataset, 0); i++) {
        window got = sample_of(dataset, MHP_SPLIT_TRAIN, i);

        for (int t = 0; t < LENGTH; t++) {
            masked += got.targets[t] == MHP_DATA_MASKED;
            assert_int_equal(got.starts[t], 0);
            if (t + 1 < LENGTH && got.targets[t] != MHP_DATA_MASKED) {
                assert_int_equal(got.targets[t], got.tokens[t + 1]);
            }
        }
    }
    assert_int_equal(masked, mhp_dataset_epoch(dataset, 0) * LENGTH - (uint64_t)all_tokens() + 1);
    mhp_dataset_close(dataset);
}

static void ends_of_documents_are_appended(void **state)
{
    static int seen[VOCABULARY];
    mhp_dataset *dataset = open_one(0, false, END, 3);

    (void)state;
    assert_int_equal(mhp_dataset_tokens(dataset, MHP_SPLIT_TRAIN), all_tokens() + DOCUMENTS);
    memset(seen, 0, sizeof seen);
    count_tokens(dataset, MHP_SPLIT_TRAIN, 0, mhp_dataset_epoch(dataset, 0), seen);
    assert_int_equal(seen[END], DOCUMENTS);
    mhp_dataset_close(dataset);
    /* documents that end with it are left as they are: here the one of a single token, 0 */
    dataset = open_one(0, false, 0, 3);
    assert_int_equal(mhp_dataset_tokens(dataset, MHP_SPLIT_TRAIN), all_tokens() + DOCUMENTS - 1);
    mhp_dataset_close(dataset);
}

static void held_out_documents_are_disjoint(void **state)
{
    static int held[VOCABULARY], again[VOCABULARY], trained[VOCABULARY];
    uint64_t documents = 0;

    (void)state;
    memset(held, 0, sizeof held);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        mhp_dataset *dataset = open_one(0.3, false, -1, seed);
        uint64_t count = mhp_dataset_held_out_count(dataset);

        documents = mhp_dataset_documents(dataset, MHP_SPLIT_HELD_OUT);
        assert_int_equal(documents + mhp_dataset_documents(dataset, MHP_SPLIT_TRAIN), DOCUMENTS);
        assert_in_range(documents, 4, 20);
        memset(again, 0, sizeof again);
        memset(trained, 0, sizeof trained);
        count_tokens(dataset, MHP_SPLIT_HELD_OUT, 0, count, again);
        count_tokens(dataset, MHP_SPLIT_TRAIN, 0, mhp_dataset_epoch(dataset, 0), trained);
        for (int token = 1; token < VOCABULARY; token++) {      /* 0 also pads */
            bool there = token < DOCUMENTS * DOCUMENT_ROOM &&
                         token % DOCUMENT_ROOM < document_tokens(token / DOCUMENT_ROOM);

            assert_int_equal(again[token] + trained[token], there);
        }
        if (seed > 1) {
            assert_memory_equal(held, again, sizeof held);
        }
        memcpy(held, again, sizeof held);
        mhp_dataset_close(dataset);
    }
}

static void blending_keeps_proportions(void **state)
{
    enum { SOURCES = 3, BASE = 10000 };
    static double weights[SOURCES] = {0.5, 0.2, 0.3};
    char *paths[SOURCES] = {test_path("s0"), test_path("s1"), test_path("s2")};
    mhp_data_params params = params_of(paths, SOURCES, 0);
    int counts[SOURCES] = {0};
    mhp_dataset *dataset;

    (void)state;
    for (int s = 0; s < SOURCES; s++) {
        write_source(s == 0 ? "s0" : s == 1 ? "s1" : "s2", s * BASE);
    }
    params.weights = (mhp_float_list){weights, SOURCES};
    dataset = open_data(&params, 9);
    for (uint64_t i = 0; i < 1000; i++) {
        counts[sample_of(dataset, MHP_SPLIT_TRAIN, i).tokens[0] / BASE]++;
        for (int s = 0; s < SOURCES; s++) {
            double exact = weights[s] * (double)(i + 1);

            assert_true(counts[s] > exact - 1 - 1e-9 && counts[s] < exact + 1 + 1e-9);
        }
    }
    mhp_dataset_close(dataset);
}

static void tokens_beyond_the_vocabulary_are_refused(void **state)
{
    static const uint16_t tokens[] = {1, 2, 3, 99, 4};
    int32_t buffers[3][LENGTH];
    char *paths[] = {test_path("v")};
    mhp_data_params params = params_of(paths, 1, 0);
    mhp_indexed_writer *writer = NULL;
    mhp_dataset *dataset = NULL;
    mhp_status status;

    (void)state;
    assert_ok(mhp_indexed_create(paths[0], &writer));
    assert_ok(mhp_indexed_append(writer, tokens, 5));
    assert_ok(mhp_indexed_finish(writer));
    assert_ok(mhp_dataset_open(&params, LENGTH, 1, 99, &dataset));
    status = mhp_dataset_sample(dataset, MHP_SPLIT_TRAIN, 0, buffers[0], buffers[1], buffers[2]);
    assert_error(status, MHP_ERR_FORMAT, test_path("v.bin"));
    assert_non_null(strstr(mhp_error_text(), "token 3 "));
    assert_non_null(strstr(mhp_error_text(), "id 99"));
    mhp_dataset_close(dataset);
    assert_ok(mhp_dataset_open(&params, LENGTH, 1, 100, &dataset));
    assert_int_equal(sample_of(dataset, MHP_SPLIT_TRAIN, 0).tokens[3], 99);
    mhp_dataset_close(dataset);
}

static void wrong_parameters_are_refused(void **state)
{
    static double weights[] = {1, -1};
    char *paths[] = {test_path("a"), test_path("missing")};
    mhp_data_params params = params_of(paths, 0, 0);
    mhp_dataset *dataset = NULL;

    (void)state;
    write_source("a", 0);
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_CONFIG, "data.path");
    params.path.count = 2;
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_NOT_FOUND, "missing");
    params.weights = (mhp_float_list){weights, 1};
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_CONFIG, "data.weights");
    params.weights.count = 2;
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_CONFIG, "-1");
    params = params_of(paths, 1, 1);
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_CONFIG, "held_out");
    params.split.held_out = 0;
    params.end_of_document = 99;
    assert_error(mhp_dataset_open(&params, 8, 1, 99, &dataset), MHP_ERR_CONFIG, "end_of_document");
    params.end_of_document = -1;
    assert_error(mhp_dataset_open(&params, 0, 1, 99, &dataset), MHP_ERR_CONFIG, "length 0");
    assert_error(mhp_dataset_open(&params, 8, 1, 0, &dataset), MHP_ERR_CONFIG, "vocabulary");
    assert_null(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(samples_depend_on_seed_and_number_alone),
        TEST_IN_FOLDER(an_epoch_has_every_window_once),
        TEST_IN_FOLDER(borders_are_obeyed),
        TEST_IN_FOLDER(the_last_window_is_padded),
        TEST_IN_FOLDER(documents_may_be_crossed),
        TEST_IN_FOLDER(ends_of_documents_are_appended),
        TEST_IN_FOLDER(held_out_documents_are_disjoint),
        TEST_IN_FOLDER(blending_keeps_proportions),
        TEST_IN_FOLDER(tokens_beyond_the_vocabulary_are_refused),
        TEST_IN_FOLDER(wrong_parameters_are_refused),
    };

    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
