#include "runtime/partition.h"

#include <math.h>

static mhp_status check_given(int64_t layer_count, int stage_count, const mhp_float_list *given)
{
    double sum = 0;

    if (given->count != (size_t)stage_count) {
        return mhp_error_set(MHP_ERR_CONFIG, "schedule.layers_per_stage has %zu entries: expected one for each of %d stages",
                             given->count, stage_count);
    }
    for (size_t i = 0; i < given->count; i++) {
        double sublayers = 2 * given->items[i];

        if (sublayers < 1 || given->items[i] > (double)layer_count || sublayers != floor(sublayers)) {
            return mhp_error_set(MHP_ERR_CONFIG,
                                 "schedule.layers_per_stage gives stage %zu %g layers: expected "
                                 "a multiple of 0.5 from 0.5 to model.num_hidden_layers, %lld",
                                 i, given->items[i], (long long)layer_count);
        }
        sum += given->items[i];
    }
    if (sum != (double)layer_count) {
        return mhp_error_set(MHP_ERR_CONFIG, "schedule.layers_per_stage adds up to %g layers: expected model.num_hidden_layers, %lld",
                             sum, (long long)layer_count);
    }
    return MHP_OK;
}

mhp_status mhp_partition_layers(int64_t layer_count, int stage_count, const mhp_float_list *layers_per_stage, mhp_stage_extent *extents)
{
    int first = 0;
    bool given = layers_per_stage && layers_per_stage->count > 0;

    if (given) {
        MHP_RETURN_IF_ERROR(check_given(layer_count, stage_count, layers_per_stage));
    } else if (layer_count < stage_count) {
        return mhp_error_set(MHP_ERR_CONFIG,
                             "the schedule has %d stages but the model only %lld layers: expected at least one a stage, or "
                             "schedule.layers_per_stage with halves",
                             stage_count, (long long)layer_count);
    }
    for (int s = 0; s < stage_count; s++) {
        int64_t even = layer_count / stage_count + (s < layer_count % stage_count ? 1 : 0);
        int count = (int)(2 * (given ? layers_per_stage->items[s] : (double)even));

        extents[s] = (mhp_stage_extent){
            .first_sublayer = first, .sublayer_count = count, .first = s == 0, .last = s == stage_count - 1};
        first += count;
    }
    return MHP_OK;
}
