/* Manifests and the folder of checkpoints: what is written reads back, every flipped bit is noticed, nothing wrong is believed. */
#include "tests/unit/runtime/folder.h"

#include <math.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/checkpoint/aside.h"
#include "runtime/checkpoint/catalog.h"

static const mhp_checkpoint_state sample_state = {
    .step = 12, .next_sample = 96, .samples_per_step = 8, .seed = 5, .best_loss = 1.5, .loss_mean = 1.0 / 3, .loss_count = 9,
    .configuration = "0123456789abcdef0123456789abcdef"};

static void add_tensor(mhp_manifest *manifest, const char *name, int64_t rows, int64_t first, int64_t count)
{
    mhp_manifest_tensor tensor = {.info = {.dtype = MHP_DTYPE_F32, .rank = 2, .shape = {rows, 4}}, .first = first, .count = count, .owner = 1,
                                  .hash = mhp_hash_bytes(name, strlen(name))};

    snprintf(tensor.info.name, sizeof tensor.info.name, "%s", name);
    assert_ok(mhp_manifest_add_tensor(manifest, &tensor));
}

static mhp_manifest make_manifest(void)
{
    mhp_manifest manifest = {.state = sample_state, .rank_count = 2};

    assert_ok(mhp_manifest_add_file(&manifest, "model-00001-of-00002.safetensors", mhp_hash_bytes("f", 1)));
    add_tensor(&manifest, "b", 3, 0, 12);
    add_tensor(&manifest, "a", 2, 5, 3);
    add_tensor(&manifest, "a", 2, 0, 5);
    return manifest;
}

static void write_sample(const char *path, mhp_hash *checksum)
{
    mhp_manifest manifest = make_manifest();

    assert_ok(mhp_manifest_write(&manifest, path, checksum));
    mhp_manifest_release(&manifest);
}

static void test_reads_back(void **state)
{
    mhp_manifest manifest;
    mhp_hash written, found;
    const mhp_manifest_tensor *first;

    (void)state;
    write_sample(test_path("m.json"), &written);
    assert_ok(mhp_manifest_read(test_path("m.json"), &manifest, &found));
    assert_true(mhp_hash_equal(written, found));
    assert_int_equal(manifest.state.step, 12);
    assert_int_equal(manifest.state.next_sample, 96);
    assert_true(manifest.state.best_loss == 1.5);
    assert_true(manifest.state.loss_mean == 1.0 / 3);
    assert_int_equal(manifest.state.loss_count, 9);
    assert_string_equal(manifest.state.configuration, sample_state.configuration);
    assert_int_equal(manifest.file_count, 1);
    assert_int_equal(mhp_manifest_find(&manifest, "a", &first), 2);
    assert_int_equal(first[0].first, 0);
    assert_int_equal(first[1].first, 5);
    assert_int_equal(mhp_manifest_find(&manifest, "b", &first), 1);
    assert_true(mhp_hash_equal(first->hash, mhp_hash_bytes("b", 1)));
    assert_int_equal(mhp_manifest_find(&manifest, "c", &first), 0);
    mhp_manifest_release(&manifest);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    char *text = NULL;
    size_t size;

    (void)state;
    write_sample(test_path("m.json"), NULL);
    assert_ok(mhp_file_read_all(test_path("m.json"), 1 << 20, &text, &size));
    for (size_t bit = 0; bit < 8 * size; bit++) {
        mhp_manifest manifest;

        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
        assert_error(mhp_manifest_parse("m", text, size, true, &manifest, NULL), MHP_ERR_FORMAT, "m");
        mhp_manifest_release(&manifest);
        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
    }
    for (size_t length = 0; length < size; length++) {
        mhp_manifest manifest;

        assert_int_equal(mhp_manifest_parse("m", text, length, true, &manifest, NULL), MHP_ERR_FORMAT);
        mhp_manifest_release(&manifest);
    }
    mhp_free(text);
}

/* Right checksums, wrong contents: a part of the text replaced. */
static void assert_refused(const char *part, const char *with, const char *expected)
{
    char *text = NULL, *at, *changed = NULL;
    mhp_manifest manifest;
    mhp_status status;
    size_t size;

    write_sample(test_path("m.json"), NULL);
    assert_ok(mhp_file_read_all(test_path("m.json"), 1 << 20, &text, &size));
    at = strstr(text, part);
    assert_non_null(at);
    *at = '\0';
    assert_ok(mhp_asprintf(&changed, "%s%s%s", text, with, at + strlen(part)));
    status = mhp_manifest_parse("m", changed, strlen(changed), false, &manifest, NULL);
    assert_true(status == MHP_ERR_FORMAT || status == MHP_ERR_UNSUPPORTED);
    assert_error(status, status, expected);
    mhp_manifest_release(&manifest);
    mhp_free(changed);
    mhp_free(text);
}

static void test_wrong_contents(void **state)
{
    (void)state;
    assert_refused("model-00001-of-00002.safetensors", "../../etc/passwd", "name");
    assert_refused("model-00001-of-00002.safetensors", "/etc/passwd", "name");
    assert_refused("model-00001-of-00002.safetensors", ".hidden", "name");
    assert_refused("\"version\": 2", "\"version\": 3", "version");
    assert_refused("\"step\": 12", "\"step\": -1", "step");
    assert_refused("\"count\": 12", "\"count\": 13", "tensor \"b\": m: key \"count\"");
    assert_refused("\"first\": 5", "\"first\": 4", "tensor \"a\": two entries disagree or overlap");
    assert_refused("\"file\": 0", "\"file\": 1", "key \"file\"");
    assert_refused("\"F32\"", "\"F33\"", "dtype");
    assert_refused("   3,\n    4", "   4611686018427387904,\n    4", "shape");
}

static void test_latest(void **state)
{
    char *folder = NULL, *manifest_path = NULL, *latest = NULL;
    mhp_hash checksum;
    int64_t step = 0;

    (void)state;
    assert_ok(mhp_catalog_clean(test_folder));
    assert_error(mhp_catalog_latest(test_folder, &step), MHP_ERR_NOT_FOUND, "latest");
    assert_ok(mhp_catalog_begin(test_folder, 12));
    assert_ok(mhp_catalog_work_path(test_folder, 12, &folder));
    assert_ok(mhp_asprintf(&manifest_path, "%s/manifest.json", folder));
    write_sample(manifest_path, &checksum);
    assert_ok(mhp_catalog_commit(test_folder, 12, checksum));
    assert_ok(mhp_catalog_latest(test_folder, &step));
    assert_int_equal(step, 12);
    assert_ok(mhp_asprintf(&latest, "%s/checkpoints/latest", test_folder));
    for (size_t bit = 0; bit < 8 * 47; bit++) {
        char *text = NULL;
        size_t size;

        assert_ok(mhp_file_read_all(latest, 100, &text, &size));
        assert_int_equal(size, 47);
        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
        assert_ok(mhp_file_write_atomic(latest, text, size));
        assert_error(mhp_catalog_latest(test_folder, &step), MHP_ERR_FORMAT, "latest");
        text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
        assert_ok(mhp_file_write_atomic(latest, text, size));
        mhp_free(text);
    }
    mhp_free(latest);
    mhp_free(manifest_path);
    mhp_free(folder);
}

static void commit(int64_t step)
{
    char *folder = NULL, *path = NULL;
    mhp_hash checksum;

    assert_ok(mhp_catalog_begin(test_folder, step));
    assert_ok(mhp_catalog_work_path(test_folder, step, &folder));
    assert_ok(mhp_asprintf(&path, "%s/manifest.json", folder));
    write_sample(path, &checksum);
    assert_ok(mhp_catalog_commit(test_folder, step, checksum));
    mhp_free(path);
    mhp_free(folder);
}

static void assert_steps(const char *expected)
{
    char found[256] = "";
    int64_t *steps = NULL;
    size_t count;

    assert_ok(mhp_catalog_steps(test_folder, &steps, &count));
    for (size_t i = 0; i < count; i++) {
        snprintf(found + strlen(found), sizeof found - strlen(found), "%lld ", (long long)steps[i]);
    }
    assert_string_equal(found, expected);
    mhp_free(steps);
}

static void test_retention(void **state)
{
    mhp_aside aside;

    (void)state;
    for (int64_t step = 10; step <= 80; step += 10) {
        commit(step);
    }
    assert_ok(mhp_catalog_retain(test_folder, 0, 0));
    assert_steps("10 20 30 40 50 60 70 80 ");
    assert_ok(mhp_catalog_retain(test_folder, 3, 40));
    assert_steps("40 60 70 80 ");
    assert_ok(mhp_put_aside_after(test_folder, 60, &aside));
    assert_steps("40 60 ");
    commit(40);
    assert_steps("40 60 ");
}

static void assert_there(const char *expected, ...)
{
    va_list names;

    va_start(names, expected);
    for (const char *name = expected; name; name = va_arg(names, const char *)) {
        if (!mhp_file_exists(test_path(name))) {
            fail_msg("there is no %s", name);
        }
    }
    va_end(names);
}

/* Whatever is put aside stays, however often that happens, and what goes together has one number. */
static void test_put_aside(void **state)
{
    mhp_aside aside;

    (void)state;
    assert_ok(mhp_put_aside_run(test_folder, &aside));
    assert_false(aside.any);
    test_write("metrics.jsonl", "", 0);                 /* of a run that made no step */
    assert_ok(mhp_put_aside_run(test_folder, &aside));
    assert_false(aside.any);
    assert_there("metrics.jsonl", NULL);
    commit(10);
    commit(20);
    assert_ok(mhp_put_aside_after(test_folder, 10, &aside));
    assert_true(aside.any && aside.checkpoints == 1 && aside.newest == 20 && aside.suffix[0] == '\0');
    assert_there("checkpoints/abandoned-step-00000020/manifest.json", "metrics.jsonl", NULL);
    commit(20);
    test_write("metrics.jsonl", "{}\n", 3);
    assert_ok(mhp_put_aside_run(test_folder, &aside));
    assert_true(aside.checkpoints == 2 && aside.newest == 20);
    assert_string_equal(aside.suffix, ".2");
    assert_there("checkpoints/abandoned-step-00000020/manifest.json", "checkpoints/abandoned-step-00000020.2/manifest.json",
                 "checkpoints/abandoned-step-00000010.2/manifest.json", "abandoned-metrics.jsonl.2", NULL);
    assert_false(mhp_file_exists(test_path("metrics.jsonl")));
    assert_steps("");
    assert_ok(mhp_mkdirs(test_path("best")));
    test_write("best/config.json", "{}", 2);            /* killed before the first checkpoint */
    test_write("summary.json", "{}", 2);
    assert_ok(mhp_put_aside_run(test_folder, &aside));
    assert_true(aside.any && aside.checkpoints == 0);
    assert_there("abandoned-best.3/config.json", "abandoned-summary.json.3", NULL);
}

static void test_leftovers_are_no_checkpoints(void **state)
{
    char *folder = NULL;

    (void)state;
    commit(10);
    assert_ok(mhp_catalog_begin(test_folder, 20));
    assert_ok(mhp_catalog_path(test_folder, 30, &folder));
    assert_ok(mhp_mkdirs(folder));                      /* without a manifest */
    assert_steps("10 ");
    mhp_free(folder);
    assert_ok(mhp_catalog_work_path(test_folder, 20, &folder));
    assert_ok(mhp_catalog_clean(test_folder));
    assert_false(mhp_file_exists(folder));
    assert_steps("10 ");
    mhp_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(test_reads_back),
        TEST_IN_FOLDER(test_every_flipped_bit_is_noticed),
        TEST_IN_FOLDER(test_wrong_contents),
        TEST_IN_FOLDER(test_latest),
        TEST_IN_FOLDER(test_retention),
        TEST_IN_FOLDER(test_put_aside),
        TEST_IN_FOLDER(test_leftovers_are_no_checkpoints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
