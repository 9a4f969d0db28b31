#include "runtime/checkpoint/parts.h"

#include <stdio.h>

#include "core/file.h"
#include "core/memory.h"

const char *const mhp_moment_prefixes[MHP_MOMENT_COUNT] = {"exp_avg.", "exp_avg_sq."};

/* What a copy engine moves at once at full speed: pieces of so many bytes begin at such a multiple in the image. */
enum { LINE_BYTES = 64 };
_Static_assert(MHP_PAGE_BYTES % MHP_FILE_BLOCK == 0 && MHP_PAGE_BYTES % LINE_BYTES == 0, "images begin at a block and a line");

/* One array of one held stage: elements begin .. end - 1 of its flat buffer. */
typedef struct staged_range {
    const mhp_held_stage *held;
    int kind;
    const char *prefix;             /* of the tensors' names */
    const char *source;             /* device memory of element `begin` */
    int64_t begin, end;
} staged_range;

typedef struct staged_copy {
    const char *source;             /* device memory */
    char *target;                   /* in an image */
    size_t bytes;
} staged_copy;

typedef struct file_image {
    char *data;                     /* host memory */
    size_t bytes, placed_bytes;
} file_image;

enum { RANGES_OF_STAGE = 1 + MHP_MOMENT_COUNT };

struct mhp_checkpoint_parts {
    mhp_store *store;
    mhp_stream *stream;
    staged_range *ranges;           /* of all stages: parameters first, then moments */
    int range_count;
    file_image images[MHP_PART_KINDS];
    mhp_checkpoint_piece *pieces;
    staged_copy *copies;            /* of pieces that lie together in device memory and image, one */
    size_t piece_count, copy_count;
};

static size_t element_bytes(const mhp_store *store)
{
    return mhp_dtype_bytes(store->kernels->full_dtype);
}

static int64_t at_least(int64_t value, int64_t bound)
{
    return value > bound ? value : bound;
}

static int64_t at_most(int64_t value, int64_t bound)
{
    return value < bound ? value : bound;
}

/* The whole parameters that begin in this rank's share. */
static staged_range parameter_range(const mhp_checkpoint_parts *parts, const mhp_held_stage *held)
{
    const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
    int64_t share = held->chunk * mhp_group_index(held->group);
    staged_range range = {.held = held, .kind = MHP_PART_MODEL, .prefix = "", .begin = -1};

    for (int p = 0; p < layout->count; p++) {
        const mhp_parameter *parameter = &layout->items[p];

        if (parameter->offset >= share && parameter->offset < share + held->chunk) {
            range.begin = range.begin < 0 ? parameter->offset : range.begin;
            range.end = parameter->offset + parameter->elements;
        }
    }
    range.begin = at_least(range.begin, 0);
    range.source = (const char *)held->parameters + (size_t)range.begin * element_bytes(parts->store);
    return range;
}

static mhp_status create_ranges(mhp_checkpoint_parts *parts, mhp_optimizer *optimizer)
{
    mhp_store *store = parts->store;

    MHP_RETURN_IF_ERROR(mhp_calloc(&parts->ranges, (size_t)store->held_count * RANGES_OF_STAGE, sizeof *parts->ranges));
    for (int i = 0; i < store->held_count; i++) {
        parts->ranges[parts->range_count++] = parameter_range(parts, &store->held[i]);
    }
    for (int i = 0; i < store->held_count; i++) {
        const mhp_held_stage *held = &store->held[i];
        int64_t begin = held->chunk * mhp_group_index(held->group);
        void *moments[MHP_MOMENT_COUNT];

        mhp_optimizer_moments(optimizer, held, &moments[0], &moments[1]);
        for (int k = 0; k < MHP_MOMENT_COUNT; k++) {
            parts->ranges[parts->range_count++] =
                (staged_range){.held = held, .kind = MHP_PART_OPTIMIZER, .prefix = mhp_moment_prefixes[k], .source = moments[k],
                               .begin = begin, .end = at_most(begin + held->chunk, mhp_stage_layout(held->stage)->elements)};
        }
    }
    return MHP_OK;
}

/* The part of a parameter that a range has, in elements of the flat buffer; false if it has none. */
static bool cut_parameter(const staged_range *range, const mhp_parameter *parameter, int64_t *first, int64_t *last)
{
    *first = at_least(parameter->offset, range->begin);
    *last = at_most(parameter->offset + parameter->elements, range->end);
    return *first < *last;
}

static mhp_status create_images(mhp_checkpoint_parts *parts)
{
    size_t count = 0;

    for (int r = 0; r < parts->range_count; r++) {
        const mhp_parameter_layout *layout = mhp_stage_layout(parts->ranges[r].held->stage);
        int64_t first, last;

        for (int p = 0; p < layout->count; p++) {
            if (cut_parameter(&parts->ranges[r], &layout->items[p], &first, &last)) {
                parts->images[parts->ranges[r].kind].bytes += (size_t)(last - first) * element_bytes(parts->store);
                count++;
            }
        }
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&parts->pieces, count, sizeof *parts->pieces));
    MHP_RETURN_IF_ERROR(mhp_calloc(&parts->copies, count, sizeof *parts->copies));
    for (int kind = 0; kind < MHP_PART_KINDS; kind++) {
        size_t bytes = parts->images[kind].bytes;

        MHP_RETURN_IF_ERROR(mhp_device_alloc_host(parts->store->device, bytes > MHP_PAGE_BYTES ? bytes : MHP_PAGE_BYTES,
                                                  (void **)&parts->images[kind].data));
    }
    return MHP_OK;
}

static void add_copy(mhp_checkpoint_parts *parts, staged_copy copy)
{
    staged_copy *last = parts->copy_count > 0 ? &parts->copies[parts->copy_count - 1] : NULL;

    if (last && last->source + last->bytes == copy.source && last->target + last->bytes == copy.target) {
        last->bytes += copy.bytes;
    } else {
        parts->copies[parts->copy_count++] = copy;
    }
}

/* Places a parameter's part behind the others of its file if it is of whole lines, or not, as `whole_lines` says. */
static mhp_status add_piece(mhp_checkpoint_parts *parts, const staged_range *range, const mhp_parameter *parameter, bool whole_lines)
{
    mhp_checkpoint_piece *piece = &parts->pieces[parts->piece_count];
    file_image *image = &parts->images[range->kind];
    mhp_tensor_info *info = &piece->tensor.info;
    size_t size = element_bytes(parts->store), bytes;
    int64_t first, last;

    if (!cut_parameter(range, parameter, &first, &last) || ((size_t)(last - first) * size % LINE_BYTES == 0) != whole_lines) {
        return MHP_OK;
    }
    bytes = (size_t)(last - first) * size;
    *info = parameter->info;
    if (snprintf(info->name, sizeof info->name, "%s%s", range->prefix, parameter->info.name) >= (int)sizeof info->name) {
        return mhp_error_set(MHP_ERR_LIMIT, "tensor name %s%s exceeds %d bytes", range->prefix, parameter->info.name,
                             MHP_TENSOR_NAME_MAX - 1);
    }
    piece->tensor.first = first - parameter->offset;
    piece->tensor.count = last - first;
    piece->tensor.owner = parts->store->world_rank;
    piece->kind = range->kind;
    piece->data = image->data + image->placed_bytes;
    add_copy(parts, (staged_copy){range->source + (size_t)(first - range->begin) * size, image->data + image->placed_bytes, bytes});
    image->placed_bytes += bytes;
    parts->piece_count++;
    return MHP_OK;
}

/* Those of whole lines first, so that all of them begin at one. */
static mhp_status create_pieces(mhp_checkpoint_parts *parts)
{
    for (int whole_lines = 1; whole_lines >= 0; whole_lines--) {
        for (int r = 0; r < parts->range_count; r++) {
            const mhp_parameter_layout *layout = mhp_stage_layout(parts->ranges[r].held->stage);

            for (int p = 0; p < layout->count; p++) {
                MHP_RETURN_IF_ERROR(add_piece(parts, &parts->ranges[r], &layout->items[p], whole_lines));
            }
        }
    }
    return MHP_OK;
}

mhp_status mhp_checkpoint_parts_create(mhp_store *store, mhp_optimizer *optimizer, mhp_checkpoint_parts **parts_out)
{
    mhp_status status = MHP_OK;
    mhp_checkpoint_parts *parts = NULL;

    MHP_TRY(out, mhp_calloc(&parts, 1, sizeof *parts));
    parts->store = store;
    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "save", &parts->stream));
    MHP_TRY(out, create_ranges(parts, optimizer));
    MHP_TRY(out, create_images(parts));
    MHP_TRY(out, create_pieces(parts));
    *parts_out = parts;
    parts = NULL;
out:
    mhp_checkpoint_parts_destroy(parts);
    return status;
}

void mhp_checkpoint_parts_destroy(mhp_checkpoint_parts *parts)
{
    if (!parts) {
        return;
    }
    mhp_stream_destroy(parts->stream);
    for (int kind = 0; kind < MHP_PART_KINDS; kind++) {
        mhp_device_free_host(parts->store->device, parts->images[kind].data);
    }
    mhp_free(parts->ranges);
    mhp_free(parts->pieces);
    mhp_free(parts->copies);
    mhp_free(parts);
}

mhp_status mhp_checkpoint_parts_stage(mhp_checkpoint_parts *parts)
{
    for (size_t i = 0; i < parts->copy_count; i++) {
        const staged_copy *copy = &parts->copies[i];

        MHP_RETURN_IF_ERROR(mhp_stream_copy(parts->stream, copy->target, copy->source, copy->bytes));
    }
    return mhp_stream_synchronize(parts->stream);
}

const mhp_checkpoint_piece *mhp_checkpoint_parts_pieces(const mhp_checkpoint_parts *parts, size_t *count_out)
{
    *count_out = parts->piece_count;
    return parts->pieces;
}

const char *mhp_checkpoint_parts_image(const mhp_checkpoint_parts *parts, int kind, size_t *bytes_out)
{
    *bytes_out = parts->images[kind].bytes;
    return parts->images[kind].data;
}
