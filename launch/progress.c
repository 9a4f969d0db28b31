#include "launch/progress.h"

#include <math.h>
#include <stdio.h>

enum { LINE_MAX_BYTES = 256 };

void mhp_format_short(double value, char text[MHP_SHORT_NUMBER_MAX])
{
    static const char letters[] = {'\0', 'k', 'M', 'G', 'T', 'P'};
    size_t power = 0;

    while (fabs(value) >= 999.5 && power + 1 < sizeof letters) {
        value /= 1000;
        power++;
    }
    snprintf(text, MHP_SHORT_NUMBER_MAX, "%.*f%.1s",
             power == 0 || fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2, value,
             &letters[power]);
}

static void format_step(const mhp_progress *progress, const mhp_step_report *report, char *line)
{
    char tokens[MHP_SHORT_NUMBER_MAX], flops[MHP_SHORT_NUMBER_MAX];
    double seconds = report->step_s > 0 ? report->step_s : 1e-9;

    mhp_format_short((double)report->tokens / seconds, tokens);
    mhp_format_short(report->flops / seconds, flops);
    snprintf(line, LINE_MAX_BYTES,
             "step %*lld/%lld  loss %.4f  lr %.2e  |g| %-6.3g %6s tok/s %5.0f ms  bubble %3.0f %%  "
             "gain %.2f/%.2f  %sFLOP/s",
             snprintf(NULL, 0, "%lld", (long long)progress->total), (long long)report->step + 1,
             (long long)progress->total, report->loss, report->rate, report->gradient_norm, tokens,
             seconds * 1e3, report->bubble * 100, report->gain_forward, report->gain_backward,
             flops);
}

void mhp_progress_step(mhp_progress *progress, const mhp_step_report *report, double held_out_loss)
{
    int64_t done = report->step + 1;
    char line[LINE_MAX_BYTES];

    format_step(progress, report, line);
    if (progress->terminal) {
        printf("\r\033[K%s", line);
        progress->open = true;
    } else if (done % progress->line_every == 0 || done == 1 || done == progress->total) {
        printf("%s\n", line);
    }
    if (!isnan(held_out_loss)) {
        mhp_progress_end(progress);
        printf("step %lld: held-out loss %.4f nats a token\n", (long long)done, held_out_loss);
    }
    fflush(stdout);
}

void mhp_progress_end(mhp_progress *progress)
{
    if (progress->open) {
        printf("\n");
    }
    progress->open = false;
}
