/* Seals on one device, without a channel: what was sealed is accepted, and any flipped bit or another message in its place is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm/seal.h"

enum { MESSAGE_BYTES = 100, LABEL = 7, OTHER = 8 };

typedef struct ends {
    mhp_device *device;
    mhp_stream *stream;
    mhp_event *ready, *done;
    char *message;
} ends;

static void describe(uint64_t label, char *text, size_t size)
{
    snprintf(text, size, "number %d", (int)label);
}

static ends open_ends(mhp_device_kind kind)
{
    mhp_device_params params = {.kind = kind, .threads = 1, .seed = 5};
    ends e = {NULL};

    assert_int_equal(mhp_device_open(&params, &e.device), MHP_OK);
    assert_int_equal(mhp_stream_create(e.device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "test", &e.stream), MHP_OK);
    assert_int_equal(mhp_event_create(e.device, &e.ready), MHP_OK);
    assert_int_equal(mhp_event_create(e.device, &e.done), MHP_OK);
    assert_int_equal(mhp_device_alloc(e.device, mhp_sealed_bytes(MESSAGE_BYTES), (void **)&e.message), MHP_OK);
    for (int i = 0; i < MESSAGE_BYTES; i++) {
        e.message[i] = (char)(i * 7);
    }
    return e;
}

static void close_ends(ends *e)
{
    mhp_device_free(e->device, e->message);
    mhp_event_destroy(e->done);
    mhp_event_destroy(e->ready);
    mhp_stream_destroy(e->stream);
    mhp_device_close(e->device);
}

static mhp_seals *make_seals(const ends *e)
{
    mhp_seals *seals = NULL;
    mhp_seals_params params = {.device = e->device, .name = "state 0 to 1", .message_bytes = MESSAGE_BYTES, .slot_count = 2,
                               .describe = describe};

    assert_int_equal(mhp_seals_create(&params, &seals), MHP_OK);
    return seals;
}

static void seal(const ends *e, uint64_t label)
{
    mhp_seals *seals = make_seals(e);
    mhp_event *sealed;

    assert_int_equal(mhp_event_record(e->ready, e->stream), MHP_OK);
    assert_int_equal(mhp_seals_set(seals, e->message, label, e->ready, &sealed), MHP_OK);
    assert_int_equal(mhp_event_synchronize(sealed, 0), MHP_OK);
    mhp_seals_destroy(seals);
}

/* An error sticks to a stream, so every check has its own. */
static mhp_status check(const ends *e, uint64_t label)
{
    mhp_seals *seals = make_seals(e);
    mhp_status status;

    assert_int_equal(mhp_event_arm(mhp_seals_landed(seals, 1)), MHP_OK);
    assert_int_equal(mhp_seals_check(seals, e->message, 1, label, e->done), MHP_OK);
    assert_int_equal(mhp_event_query(e->done), MHP_IN_PROGRESS);
    mhp_event_signal(mhp_seals_landed(seals, 1), MHP_OK);
    status = mhp_event_synchronize(e->done, 0);
    mhp_seals_destroy(seals);
    return status;
}

static void any_bit_is_noticed(void **state)
{
    static const mhp_device_kind kinds[] = {MHP_DEVICE_CPU, MHP_DEVICE_TEST};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        ends e = open_ends(kinds[k]);
        int sum_bytes = 16;

        seal(&e, LABEL);
        assert_int_equal(check(&e, LABEL), MHP_OK);
        for (int bit = 0; bit < 8 * MESSAGE_BYTES; bit += k == 0 ? 1 : 37) {
            e.message[bit / 8] ^= (char)(1 << bit % 8);
            assert_int_equal(check(&e, LABEL), MHP_ERR_COMM);
            assert_non_null(strstr(mhp_error_text(), "state 0 to 1: the message of number 7 is corrupt"));
            e.message[bit / 8] ^= (char)(1 << bit % 8);
        }
        for (int byte = 0; byte < sum_bytes; byte++) {
            e.message[mhp_sealed_bytes(MESSAGE_BYTES) - MHP_SEAL_BYTES + (size_t)byte] ^= 64;
            assert_int_equal(check(&e, LABEL), MHP_ERR_COMM);
            e.message[mhp_sealed_bytes(MESSAGE_BYTES) - MHP_SEAL_BYTES + (size_t)byte] ^= 64;
        }
        assert_int_equal(check(&e, LABEL), MHP_OK);
        close_ends(&e);
    }
}

static void another_message_is_noticed(void **state)
{
    ends e = open_ends(MHP_DEVICE_CPU);

    (void)state;
    seal(&e, OTHER);
    assert_int_equal(check(&e, LABEL), MHP_ERR_COMM);
    assert_string_equal(mhp_error_text(), "state 0 to 1: in place of the message of number 7 came that of number 8");
    close_ends(&e);
}

static void flip(void *context, const char *name, uint64_t label, void *bytes, size_t size)
{
    assert_string_equal(name, "state 0 to 1");
    assert_int_equal(label, LABEL);
    assert_int_equal(size, mhp_sealed_bytes(MESSAGE_BYTES));
    ((char *)bytes)[*(size_t *)context] ^= 1;
}

static void a_fault_can_be_set(void **state)
{
    ends e = open_ends(MHP_DEVICE_CPU);
    size_t at = MESSAGE_BYTES - 1;

    (void)state;
    seal(&e, LABEL);
    mhp_seals_set_fault(flip, &at);
    assert_int_equal(check(&e, LABEL), MHP_ERR_COMM);
    mhp_seals_set_fault(NULL, NULL);
    assert_int_equal(check(&e, LABEL), MHP_ERR_COMM);
    e.message[at] ^= 1;
    assert_int_equal(check(&e, LABEL), MHP_OK);
    close_ends(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bit_is_noticed),
        cmocka_unit_test(another_message_is_noticed),
        cmocka_unit_test(a_fault_can_be_set),
    };

    return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
