#include "runtime/partition.h"

static mhp_status check_given(int64_t layer_count, int stage_count, const mhp_int_list *given)
{
    int64_t sum = 0;

    if (given->count != (size_t)stage_count) {
        return mhp_error_set(MHP_ERR_CONFIG, "schedule.layers_per_stage has %zu entries: expected one for each of %d stages",
                             given->count, stage_count);
    }
    for (size_t i = 0; i < given->count; i++) {
        if (given->items[i] < 1 || given->items[i] > layer_count) {
            return mhp_error_set(MHP_ERR_CONFIG,
                                 "schedule.layers_per_stage gives stage %zu %lld layers: expected "
                                 "at least 1 and at most model.num_hidden_layers, %lld",
                                 i, (long long)given->items[i], (long long)layer_count);
        }
        sum += given->items[i];
    }
    if (sum != layer_count) {
        return mhp_error_set(MHP_ERR_CONFIG, "schedule.layers_per_stage adds up to %lld layers: expected model.num_hidden_layers, %lld",
                             (long long)sum, (long long)layer_count);
    }
    return MHP_OK;
}

mhp_status mhp_partition_layers(int64_t layer_count, int stage_count, const mhp_int_list *layers_per_stage, mhp_stage_extent *extents)
{
    int64_t first = 0;
    bool given = layers_per_stage && layers_per_stage->count > 0;

    if (layer_count < stage_count) {
        return mhp_error_set(MHP_ERR_CONFIG, "the schedule has %d stages but the model only %lld layers: expected at least one a stage",
                             stage_count, (long long)layer_count);
    }
    if (given) {
        MHP_RETURN_IF_ERROR(check_given(layer_count, stage_count, layers_per_stage));
    }
    for (int s = 0; s < stage_count; s++) {
        int64_t even = layer_count / stage_count + (s < layer_count % stage_count ? 1 : 0);
        int64_t count = given ? layers_per_stage->items[s] : even;

        extents[s] = (mhp_stage_extent){
            .first_layer = (int)first, .layer_count = (int)count, .first = s == 0, .last = s == stage_count - 1};
        first += count;
    }
    return MHP_OK;
}
