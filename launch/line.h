/* Measures the line between two ranks by the channels that training uses, and the difference of their clocks. */
#ifndef MHP_LAUNCH_LINE_H
#define MHP_LAUNCH_LINE_H

#include "comm/comm.h"

typedef struct mhp_line_report {
    double latency_s;               /* of a small message, one way: half of the shortest round trip */
    double there, back;             /* bytes a second from the measuring rank and to it; 0 if not measured */
    double clock_s;                 /* what the peer's wall clock is ahead, within clock_error_s */
    double clock_error_s;
} mhp_line_report;

typedef enum mhp_line_what { MHP_LINE_CLOCK, MHP_LINE_SPEED } mhp_line_what;

/* On ranks `measuring` and `peer` at the same time, while no other channel is open; blocks. The first of them gets the report.
 * MHP_ERR_TIMEOUT names the two if one does not answer. */
mhp_status mhp_line_measure(mhp_comm *comm, int measuring, int peer, mhp_line_what what, mhp_line_report *report_out);

#endif
