#include "runtime/scalars.h"

#include <assert.h>
#include <math.h>

typedef struct scalar_list {
    mhp_scalar *items;
    int count;
} scalar_list;

static void add(scalar_list *list, const char *tag, const char *metric, double per_base, const char *help, double value)
{
    assert(list->count < MHP_SCALARS_MAX);
    list->items[list->count++] = (mhp_scalar){tag, metric, per_base, help, value};
}

static void add_known(scalar_list *list, const char *tag, const char *metric, const char *help, double value)
{
    if (!isnan(value)) {
        add(list, tag, metric, 1, help, value);
    }
}

static void add_energy(scalar_list *list, const mhp_step_report *report)
{
    add_known(list, "energy/gpu_j", "mhcpipe_step_energy_gpu_joules", "energy of all cards in the last step",
              report->energy.of[MHP_ENERGY_GPU]);
    add_known(list, "energy/cpu_j", "mhcpipe_step_energy_cpu_joules", "energy of all nodes' processors in the last step",
              report->energy.of[MHP_ENERGY_CPU]);
    add_known(list, "energy/j_per_token", "mhcpipe_token_energy_joules", "energy of the last step over its tokens",
              report->tokens > 0 ? mhp_joules_sum(&report->energy) / (double)report->tokens : NAN);
}

int mhp_scalars_of(const mhp_step_report *report, double held_out_loss, mhp_scalar scalars[MHP_SCALARS_MAX])
{
    scalar_list list = {scalars, 0};
    double seconds = report->step_s > 0 ? report->step_s : 1e-9;

    add(&list, "train/loss", "mhcpipe_loss", 1, "mean loss of the last step's targets, nats a token", report->loss);
    add_known(&list, "eval/held_out_loss", "mhcpipe_held_out_loss", "last held-out loss, nats a token", held_out_loss);
    add(&list, "train/lr", "mhcpipe_learning_rate", 1, "learning rate of the last step", report->rate);
    add(&list, "train/grad_norm", "mhcpipe_gradient_norm", 1, "global norm of the last step's gradient before clipping",
        report->gradient_norm);
    add(&list, "gain/forward", "mhcpipe_gain_forward", 1, "composed forward gain of all sublayers", report->gain_forward);
    add(&list, "gain/backward", "mhcpipe_gain_backward", 1, "composed backward gain of all sublayers", report->gain_backward);
    add(&list, "gain/worst_forward", "mhcpipe_worst_gain_forward", 1, "largest forward gain of a sublayer", report->worst_forward);
    add(&list, "gain/worst_backward", "mhcpipe_worst_gain_backward", 1, "largest backward gain of a sublayer", report->worst_backward);
    add(&list, "speed/tokens_per_s", "mhcpipe_tokens_per_second", 1, "tokens of the last step over its time",
        (double)report->tokens / seconds);
    add(&list, "speed/ms_per_step", "mhcpipe_step_seconds", 1e3, "wall time of the last step", seconds * 1e3);
    add(&list, "speed/bubble", "mhcpipe_bubble_ratio", 1, "share of the last step in which compute stood still, mean over ranks",
        report->bubble);
    add(&list, "speed/flops_per_s", "mhcpipe_flops_per_second", 1, "operations of matrix products a second", report->flops / seconds);
    add(&list, "memory/peak_bytes", "mhcpipe_device_memory_peak_bytes", 1, "most device memory of any rank so far", report->bytes_peak);
    add_energy(&list, report);
    return list.count;
}
