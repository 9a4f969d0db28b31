/* TensorBoard's event files, read back by a strict parser of records, checksums and messages that shares nothing with the writer. */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/tensorboard.h"
#include "tests/unit/runtime/folder.h"

enum { EVENTS_MAX = 16, VALUES_MAX = 20, TAG_MAX = 64 };

typedef struct value {
    char tag[TAG_MAX];
    float number;
} value;

typedef struct event {
    double time_s;
    uint64_t step;
    char version[TAG_MAX];
    int session;
    value values[VALUES_MAX];
    int count;
} event;

/* ---- the parser ---- */

/* CRC-32C, bit by bit. */
static uint32_t crc32c(const unsigned char *bytes, size_t count)
{
    uint32_t sum = 0xffffffffu;

    for (size_t i = 0; i < count; i++) {
        sum ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            sum = (sum >> 1) ^ (0x82f63b78u & (0u - (sum & 1)));
        }
    }
    return ~sum;
}

static uint32_t masked(uint32_t sum)
{
    return ((sum >> 15) | (sum << 17)) + 0xa282ead8u;
}

typedef struct span {
    const unsigned char *at, *end;
} span;

static uint64_t take_fixed(span *from, size_t bytes)
{
    uint64_t number = 0;

    assert_true((size_t)(from->end - from->at) >= bytes);
    for (size_t i = 0; i < bytes; i++) {
        number |= (uint64_t)from->at[i] << 8 * i;
    }
    from->at += bytes;
    return number;
}

static uint64_t take_varint(span *from)
{
    uint64_t number = 0;

    for (int shift = 0; shift < 64; shift += 7) {
        uint64_t byte = take_fixed(from, 1);

        number |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            return number;
        }
    }
    fail_msg("a varint without an end");
    return 0;
}

static span take_bytes(span *from)
{
    uint64_t count = take_varint(from);
    span part = {from->at, from->at + count};

    assert_true(count <= (uint64_t)(from->end - from->at));
    from->at = part.end;
    return part;
}

static void take_text(span *from, char text[TAG_MAX])
{
    span part = take_bytes(from);

    assert_true(part.end - part.at < TAG_MAX);
    memcpy(text, part.at, (size_t)(part.end - part.at));
    text[part.end - part.at] = '\0';
}

static void parse_value(span from, value *to)
{
    uint32_t bits = 0;

    while (from.at < from.end) {
        switch (take_varint(&from)) {
        case 1 << 3 | 2:
            take_text(&from, to->tag);
            break;
        case 2 << 3 | 5:
            bits = (uint32_t)take_fixed(&from, 4);
            memcpy(&to->number, &bits, sizeof bits);
            break;
        default:
            fail_msg("a field of a value that is none");
        }
    }
}

static void parse_summary(span from, event *to)
{
    while (from.at < from.end) {
        assert_int_equal(take_varint(&from), 1 << 3 | 2);
        assert_true(to->count < VALUES_MAX);
        parse_value(take_bytes(&from), &to->values[to->count++]);
    }
}

static void parse_event(span from, event *to)
{
    uint64_t bits;
    span part;

    *to = (event){.count = 0};
    while (from.at < from.end) {
        switch (take_varint(&from)) {
        case 1 << 3 | 1:
            bits = take_fixed(&from, 8);
            memcpy(&to->time_s, &bits, sizeof bits);
            break;
        case 2 << 3 | 0:
            to->step = take_varint(&from);
            break;
        case 3 << 3 | 2:
            take_text(&from, to->version);
            break;
        case 5 << 3 | 2:
            parse_summary(take_bytes(&from), to);
            break;
        case 7 << 3 | 2:
            part = take_bytes(&from);
            assert_int_equal(take_varint(&part), 1 << 3 | 0);
            to->session = (int)take_varint(&part);
            assert_ptr_equal(part.at, part.end);
            break;
        default:
            fail_msg("a field of an event that is none");
        }
    }
}

static int parse_file(const char *path, event events[EVENTS_MAX])
{
    char *text = NULL;
    size_t size;
    int count = 0;
    span from;

    assert_ok(mhp_file_read_all(path, 1 << 20, &text, &size));
    from = (span){(unsigned char *)text, (unsigned char *)text + size};
    while (from.at < from.end) {
        const unsigned char *start = from.at;
        uint64_t length = take_fixed(&from, 8);
        span data = {from.at + 4, from.at + 4 + length};

        assert_int_equal(take_fixed(&from, 4), masked(crc32c(start, 8)));
        assert_true(length + 4 <= (uint64_t)(from.end - from.at));
        from.at = data.end;
        assert_int_equal(take_fixed(&from, 4), masked(crc32c(data.at, length)));
        assert_true(count < EVENTS_MAX);
        parse_event(data, &events[count++]);
    }
    mhp_free(text);
    return count;
}

/* ---- the cases ---- */

static mhp_tensorboard *open_board(int64_t first_step)
{
    mhp_tensorboard *board = NULL;

    assert_ok(mhp_tensorboard_open(test_folder, first_step, &board));
    return board;
}

static void the_checksum_is_crc32c(void **state)
{
    (void)state;
    assert_int_equal(crc32c((const unsigned char *)"123456789", 9), 0xe3069283u);       /* RFC 3720's check value */
}

static void scalars_come_back(void **state)
{
    static const mhp_scalar scalars[] = {
        {"train/loss", "", 1, "", 2.5}, {"train/lr", "", 1, "", 1e-4}, {"gain/worst", "", 1, "", INFINITY}};
    mhp_tensorboard *board = open_board(0);
    event events[EVENTS_MAX];
    char path[TEST_PATH_MAX];

    (void)state;
    assert_ok(mhp_tensorboard_write(board, 1, scalars, 3));
    assert_ok(mhp_tensorboard_write(board, 1000000, scalars, 1));
    snprintf(path, sizeof path, "%s", mhp_tensorboard_path(board));
    assert_int_equal(parse_file(path, events), 3);      /* what is written can be read at once */
    mhp_tensorboard_close(board);
    assert_non_null(strstr(path, "/tensorboard/events.out.tfevents."));
    assert_int_equal(parse_file(path, events), 3);
    assert_string_equal(events[0].version, "brain.Event:2");
    assert_int_equal(events[0].count + events[0].session, 0);
    assert_int_equal(events[1].step, 1);
    assert_true(events[1].time_s > 1.6e9 && events[1].time_s >= events[0].time_s);
    assert_int_equal(events[1].count, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(events[1].values[i].tag, scalars[i].tag);
        assert_true(events[1].values[i].number == (float)scalars[i].value);
    }
    assert_int_equal(events[2].step, 1000000);
    assert_int_equal(events[2].count, 1);
}

/* Steps from 8 on are written anew: TensorBoard is told to forget the earlier ones. */
static void a_resumed_run_starts_a_session(void **state)
{
    mhp_tensorboard *board = open_board(7);
    event events[EVENTS_MAX];

    (void)state;
    assert_int_equal(parse_file(mhp_tensorboard_path(board), events), 2);
    assert_int_equal(events[1].session, 1);
    assert_int_equal(events[1].step, 8);
    mhp_tensorboard_close(board);
}

static void all_numbers_of_a_step(void **state)
{
    mhp_step_report report = {.step = 4, .loss = 3, .tokens = 100, .step_s = 0.5, .energy = {{NAN, 200}}};
    mhp_scalar scalars[MHP_SCALARS_MAX];
    mhp_tensorboard *board = open_board(0);
    event events[EVENTS_MAX];
    int without = mhp_scalars_of(&report, NAN, scalars), count;

    (void)state;
    report.energy.of[MHP_ENERGY_CPU] = 50;
    count = mhp_scalars_of(&report, 3.5, scalars);
    assert_int_equal(count, without + 2);
    assert_ok(mhp_tensorboard_write(board, 5, scalars, count));
    assert_int_equal(parse_file(mhp_tensorboard_path(board), events), 2);
    assert_int_equal(events[1].count, count);
    for (int i = 0; i < count; i++) {
        assert_string_equal(events[1].values[i].tag, scalars[i].tag);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(scalars[i].tag, scalars[j].tag);
            assert_string_not_equal(scalars[i].metric, scalars[j].metric);
        }
        if (strcmp(scalars[i].tag, "energy/j_per_token") == 0) {
            assert_true(events[1].values[i].number == 2.5f);
        }
    }
    mhp_tensorboard_close(board);
}

static void a_full_disk(void **state)
{
    static const mhp_scalar scalar = {"train/loss", "", 1, "", 2.5};
    mhp_tensorboard *board = open_board(0);
    struct rlimit limit, small;
    mhp_status status = MHP_OK;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){.rlim_cur = 1000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 100 && status == MHP_OK; i++) {
        status = mhp_tensorboard_write(board, i, &scalar, 1);
    }
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_DFL);
    assert_error(status, MHP_ERR_IO, mhp_tensorboard_path(board));
    mhp_tensorboard_close(board);
}

static void a_folder_that_is_none(void **state)
{
    mhp_tensorboard *board = NULL;

    (void)state;
    test_write("tensorboard", "x", 1);
    assert_error(mhp_tensorboard_open(test_folder, 0, &board), MHP_ERR_IO, "tensorboard");
    assert_null(board);
}

static void too_many_scalars(void **state)
{
    mhp_scalar scalars[200];
    mhp_tensorboard *board = open_board(0);

    (void)state;
    for (int i = 0; i < 200; i++) {
        scalars[i] = (mhp_scalar){"a/tag/of/many/characters", "", 1, "", 0};
    }
    assert_error(mhp_tensorboard_write(board, 1, scalars, 200), MHP_ERR_LIMIT, "more than the limit of 4096 bytes");
    mhp_tensorboard_close(board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_crc32c), TEST_IN_FOLDER(scalars_come_back), TEST_IN_FOLDER(a_resumed_run_starts_a_session),
        TEST_IN_FOLDER(all_numbers_of_a_step),    TEST_IN_FOLDER(a_full_disk),       TEST_IN_FOLDER(a_folder_that_is_none),
        TEST_IN_FOLDER(too_many_scalars),
    };

    return cmocka_run_group_tests_name("tensorboard", tests, NULL, NULL);
}
