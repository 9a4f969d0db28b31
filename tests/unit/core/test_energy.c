/* Energy: RAPL's counters in a folder like sysfs's, and NVML's in a table of functions like its own. */
#include <math.h>
#include <sys/stat.h>

#include "core/device.h"
#include "core/energy.h"
#include "core/file.h"
#include "tests/unit/core/support.h"

enum { NOBODY = 65534 };

static const double range_j = 262143.328850;
static int folders;
static char folder[SCRATCH_PATH_MAX];

/* ---- a folder like sysfs's ---- */

static void set_file(const char *zone, const char *name, const char *text)
{
    char path[2 * SCRATCH_PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", folder, zone);
    assert_ok(mhp_mkdirs(path));
    snprintf(path, sizeof path, "%s/%s/%s", folder, zone, name);
    scratch_write(path, text, strlen(text));
}

static void set_energy(const char *zone, double joules)
{
    char text[64];

    snprintf(text, sizeof text, "%.0f\n", joules * 1e6);
    set_file(zone, "energy_uj", text);
}

static void add_zone(const char *zone, const char *name, double joules)
{
    set_file(zone, "name", name);
    set_file(zone, "max_energy_range_uj", "262143328850\n");
    set_energy(zone, joules);
}

static int new_folder(void **state)
{
    char name[32];

    (void)state;
    snprintf(name, sizeof name, "powercap%d", folders++);
    snprintf(folder, sizeof folder, "%s", scratch_path(name));
    return 0;
}

static mhp_energy_meter *open_packages(void)
{
    mhp_energy_meter *meter = NULL;

    assert_ok(mhp_energy_open_packages(folder, &meter));
    return meter;
}

/* `seconds` behind the opening. */
static double read_after(mhp_energy_meter *meter, double seconds)
{
    return mhp_energy_read(meter, mhp_time_ns() + (uint64_t)(seconds * 1e9));
}

static void assert_joules(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-5)) {
        fail_msg("%.9f J, expected %.9f", found, expected);
    }
}

static void assert_unknown(const mhp_energy_meter *meter, double joules, const char *part)
{
    assert_true(isnan(joules));
    assert_contains(mhp_energy_reason(meter), part);
}

static void one_package(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", 1000);
    meter = open_packages();
    set_energy("intel-rapl:0", 1075.5);
    assert_joules(read_after(meter, 1), 75.5);
    assert_joules(read_after(meter, 1), 0);     /* nothing was consumed: that is known, and 0 */
    set_energy("intel-rapl:0", 1080);
    assert_joules(read_after(meter, 2), 4.5);
    assert_string_equal(mhp_energy_reason(meter), "");
    mhp_energy_close(meter);
}

/* Parts of a package, the same package by another way, and the machine as a whole count it again. */
static void two_packages_each_once(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", 10);
    add_zone("intel-rapl:0:0", "core\n", 5);
    add_zone("intel-rapl:1", "package-1\n", 20);
    add_zone("intel-rapl:2", "psys\n", 50);
    add_zone("intel-rapl-mmio:0", "package-0\n", 10);
    meter = open_packages();
    set_energy("intel-rapl:0", 11);
    set_energy("intel-rapl:0:0", 500);
    set_energy("intel-rapl:1", 22);
    set_energy("intel-rapl:2", 5000);
    set_energy("intel-rapl-mmio:0", 700);
    assert_joules(read_after(meter, 1), 3);
    mhp_energy_close(meter);
}

static void going_round(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", range_j - 30);
    add_zone("intel-rapl:1", "package-1-die-0\n", 7);
    meter = open_packages();
    set_energy("intel-rapl:0", 12);
    set_energy("intel-rapl:1", 8);
    assert_joules(read_after(meter, 1), 43);
    mhp_energy_close(meter);
}

/* Going round would have taken 260 kJ in a second. What comes later is known again. */
static void going_backwards(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", 1000);
    meter = open_packages();
    set_energy("intel-rapl:0", 990);
    assert_unknown(meter, read_after(meter, 1), "intel-rapl:0/energy_uj went backwards, from 1000.000000 to 990.000000 J");
    set_energy("intel-rapl:0", 995);
    assert_joules(read_after(meter, 2), 5);
    mhp_energy_close(meter);
}

static void going_round_unseen(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", 1000);
    meter = open_packages();
    set_energy("intel-rapl:0", 1500);
    assert_unknown(meter, read_after(meter, 300), "was not read for 300 s: expected less than 262 s");
    mhp_energy_close(meter);
}

/* Without a range nothing is known to go round, but it can still be read. */
static void without_a_range(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    set_file("intel-rapl:0", "name", "package-0\n");
    set_energy("intel-rapl:0", 1);
    meter = open_packages();
    set_energy("intel-rapl:0", 3);
    assert_joules(read_after(meter, 1), 2);
    set_energy("intel-rapl:0", 2);
    assert_unknown(meter, read_after(meter, 2), "went backwards");
    mhp_energy_close(meter);
}

static void missing(void **state)
{
    mhp_energy_meter *meter = open_packages();

    (void)state;
    assert_unknown(meter, read_after(meter, 1), "is not there");
    mhp_energy_close(meter);
    add_zone("dtpm", "root\n", 1);
    meter = open_packages();
    assert_unknown(meter, read_after(meter, 1), "has no zone of a package");
    mhp_energy_close(meter);
}

/* Half of a sum would look like all of it. */
static void permission_denied(void **state)
{
    char path[2 * SCRATCH_PATH_MAX];
    mhp_energy_meter *meter;
    uid_t user = geteuid();

    (void)state;
    add_zone("intel-rapl:0", "package-0\n", 10);
    add_zone("intel-rapl:1", "package-1\n", 10);
    snprintf(path, sizeof path, "%s/intel-rapl:1/energy_uj", folder);
    assert_int_equal(chmod(path, user == 0 ? 0400 : 0), 0);
    assert_int_equal(chmod(scratch_folder, 0755), 0);
    if (user == 0) {
        assert_int_equal(seteuid(NOBODY), 0);
    }
    meter = open_packages();
    if (user == 0) {
        assert_int_equal(seteuid(user), 0);
    }
    set_energy("intel-rapl:0", 20);
    assert_unknown(meter, read_after(meter, 1), "intel-rapl:1/energy_uj: Permission denied");
    mhp_energy_close(meter);
}

static void not_a_number(void **state)
{
    static const char *const texts[] = {"", "\n", "-5\n", "12 34\n", "99999999999999999999\n", "many\n"};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mhp_energy_meter *meter;

        new_folder(state);
        add_zone("intel-rapl:0", "package-0\n", 10);
        meter = open_packages();
        set_file("intel-rapl:0", "energy_uj", texts[i]);
        assert_unknown(meter, read_after(meter, 1), "expected microjoules");
        mhp_energy_close(meter);
    }
}

/* ---- NVML ---- */

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9 };

static struct {
    int init_code, energy_code, running;
    unsigned long long energy_mj;
} card;

static int fake_init(void)
{
    card.running += card.init_code == 0;
    return card.init_code;
}

static int fake_shutdown(void)
{
    card.running--;
    return 0;
}

static const char *fake_text(int code)
{
    return code == NOT_SUPPORTED ? "Not Supported" : code == NOT_FOUND ? "Not Found" : "Driver Not Loaded";
}

static int fake_find(const char *bus_id, void **handle)
{
    *handle = &card;
    return strcmp(bus_id, "0000:0A:00.0") == 0 ? 0 : NOT_FOUND;
}

static int fake_energy(void *handle, unsigned long long *energy_mj)
{
    assert_ptr_equal(handle, &card);
    *energy_mj = card.energy_mj;
    return card.energy_code;
}

static const mhp_nvml nvml = {fake_init, fake_shutdown, fake_text, fake_find, fake_energy};

static int new_card(void **state)
{
    (void)state;
    memset(&card, 0, sizeof card);
    return 0;
}

static mhp_energy_meter *open_card(const char *bus_id)
{
    mhp_energy_meter *meter = NULL;

    assert_ok(mhp_energy_open_card(&nvml, bus_id, &meter));
    return meter;
}

static void a_card(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    card.energy_mj = 123456789012345;
    meter = open_card("0000:0A:00.0");
    assert_int_equal(card.running, 1);
    card.energy_mj += 700500;
    assert_joules(read_after(meter, 1), 700.5);
    assert_joules(read_after(meter, 100000), 0);
    card.energy_mj -= 1;            /* the driver was loaded again */
    assert_unknown(meter, read_after(meter, 100001), "card 0000:0A:00.0 went backwards");
    mhp_energy_close(meter);
    assert_int_equal(card.running, 0);
}

static void a_card_that_does_not_count(void **state)
{
    mhp_energy_meter *meter;

    (void)state;
    card.energy_code = NOT_SUPPORTED;
    meter = open_card("0000:0A:00.0");
    assert_unknown(meter, read_after(meter, 1), "NVML's energy of card 0000:0A:00.0: Not Supported");
    mhp_energy_close(meter);
    assert_int_equal(card.running, 0);
}

/* One reading fails: the interval is unknown, the one behind it as well, for it has no beginning. */
static void a_card_that_fails_once(void **state)
{
    mhp_energy_meter *meter = open_card("0000:0A:00.0");

    (void)state;
    card.energy_code = NOT_SUPPORTED;
    assert_unknown(meter, read_after(meter, 1), "Not Supported");
    card.energy_code = 0;
    assert_true(isnan(read_after(meter, 2)));
    card.energy_mj = 5000;
    assert_joules(read_after(meter, 3), 5);
    mhp_energy_close(meter);
}

static void no_card_or_driver(void **state)
{
    mhp_energy_meter *meter = open_card("0000:0B:00.0");

    (void)state;
    assert_unknown(meter, read_after(meter, 1), "does not find the card 0000:0B:00.0: Not Found");
    mhp_energy_close(meter);
    assert_int_equal(card.running, 0);
    card.init_code = NO_DRIVER;
    meter = open_card("0000:0A:00.0");
    assert_unknown(meter, read_after(meter, 1), "NVML does not start: Driver Not Loaded");
    mhp_energy_close(meter);
    assert_int_equal(card.running, 0);
}

/* With or without a driver: all functions, or what is missing. */
static void nvml_of_this_machine(void **state)
{
    mhp_nvml found = {0};
    mhp_status status = mhp_nvml_load(&found);

    (void)state;
    if (status == MHP_OK) {
        assert_true(found.init && found.shutdown && found.error_text && found.find && found.energy_mj);
    } else {
        assert_failed(status, MHP_ERR_UNSUPPORTED, "libnvidia-ml.so.1", NULL);
    }
}

static void no_bus_id_without_a_card(void **state)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_device *device = NULL;
    char text[MHP_BUS_ID_MAX] = "?";

    (void)state;
    assert_ok(mhp_device_open(&params, &device));
    mhp_device_bus_id(device, text);
    assert_string_equal(text, "");
    mhp_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_package, new_folder),
        cmocka_unit_test_setup(two_packages_each_once, new_folder),
        cmocka_unit_test_setup(going_round, new_folder),
        cmocka_unit_test_setup(going_backwards, new_folder),
        cmocka_unit_test_setup(going_round_unseen, new_folder),
        cmocka_unit_test_setup(without_a_range, new_folder),
        cmocka_unit_test_setup(missing, new_folder),
        cmocka_unit_test_setup(permission_denied, new_folder),
        cmocka_unit_test(not_a_number),
        cmocka_unit_test_setup(a_card, new_card),
        cmocka_unit_test_setup(a_card_that_does_not_count, new_card),
        cmocka_unit_test_setup(a_card_that_fails_once, new_card),
        cmocka_unit_test_setup(no_card_or_driver, new_card),
        cmocka_unit_test(nvml_of_this_machine),
        cmocka_unit_test(no_bus_id_without_a_card),
    };

    return cmocka_run_group_tests_name("energy", tests, scratch_open, scratch_remove);
}
