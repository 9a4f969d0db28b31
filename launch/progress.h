/* What a training run prints: one live line on a terminal, else a line every few steps. */
#ifndef MHP_LAUNCH_PROGRESS_H
#define MHP_LAUNCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/trainer.h"

typedef struct mhp_progress {
    bool terminal;
    int64_t total;      /* steps */
    int64_t line_every; /* steps between lines where there is no terminal */
    bool open;          /* a live line stands without its newline */
} mhp_progress;

/* Prints a step; held_out_loss is NaN if there was no evaluation. */
void mhp_progress_step(mhp_progress *progress, const mhp_step_report *report,
                       double held_out_loss);
/* Ends a live line, so that something else can be printed. */
void mhp_progress_end(mhp_progress *progress);

/* "3.72k", "1.20M": three digits and a thousands letter. */
enum { MHP_SHORT_NUMBER_MAX = 16 };
void mhp_format_short(double value, char text[MHP_SHORT_NUMBER_MAX]);

#endif
