/* What a batch knows of its samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/batch.h"

enum { LENGTH = 6 };

static const mhp_batch_shape SHAPE = {.microbatches = 2, .sequences = 2, .length = LENGTH};

/* A second document begins in the middle of sample number *context. */
static mhp_status fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    const uint64_t *parted = context;

    for (int t = 0; t < LENGTH; t++) {
        token[t] = t;
        target[t] = t + 1;
        document_start[t] = sample == *parted && t >= LENGTH / 2 ? LENGTH / 2 : 0;
    }
    return MHP_OK;
}

static bool one_document(uint64_t parted, uint64_t end)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_sample_source source = {.fill = fill, .context = &parted};
    mhp_device *device = NULL;
    mhp_batch *batch = NULL;
    void *memory = NULL;
    bool result;

    assert_int_equal(mhp_device_open(&params, &device), MHP_OK);
    assert_int_equal(mhp_device_alloc(device, mhp_batch_bytes(&SHAPE), &memory), MHP_OK);
    assert_int_equal(mhp_batch_create(device, &SHAPE, memory, &batch), MHP_OK);
    assert_int_equal(mhp_batch_fill(batch, &source, 0, end), MHP_OK);
    result = mhp_batch_one_document(batch);
    mhp_batch_destroy(batch);
    mhp_device_free(device, memory);
    mhp_device_close(device);
    return result;
}

static void test_one_document(void **state)
{
    (void)state;
    assert_true(one_document(4, 4));            /* no sample of the batch has two */
    assert_false(one_document(0, 4));
    assert_false(one_document(3, 4));
    assert_true(one_document(3, 3));            /* the sample is left out */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_document)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
