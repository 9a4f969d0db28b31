/* Dumps of flight recorders: whatever is in them, there is a sentence about it, and nobody is blamed who is not there. */
#include <stdlib.h>
#include <string.h>

#include "runtime/flight_report.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_flight_report report = {0};
    char text[MHP_DIAGNOSIS_TEXT_MAX], place[MHP_PLACE_TEXT_MAX];

    if (mhp_flight_report_add(&report, "fuzz", (const char *)data, size) == MHP_OK) {
        int blamed = mhp_diagnose(report.ranks, report.size, text);

        if (blamed < -1 || blamed >= report.size || memchr(text, '\0', sizeof text) == NULL || text[0] == '\0') {
            abort();
        }
        for (int rank = 0; rank < report.size; rank++) {
            mhp_place_format(&report.ranks[rank].place, place);
        }
    }
    mhp_flight_report_release(&report);
    return 0;
}
