/* What mhcpipe top shows: a few lines about the run and one for each rank, as wide and as high as there is room for. */
#ifndef MHP_LAUNCH_TOP_VIEW_H
#define MHP_LAUNCH_TOP_VIEW_H

#include <stdio.h>

#include "runtime/live_run.h"

/* Plain text, no line longer than `width` columns, at most `rows` lines (0: all). Columns that do not fit go, the least wanted first. */
void mhp_top_print(const char *directory, const mhp_live_run *run, int width, int rows, FILE *stream);

#endif
