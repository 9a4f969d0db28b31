#include "scheduler/plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

typedef struct action_word {
    const char *text;
    bool has_microbatch;
} action_word;

#define MHP_ACTION_WORD(name, text, has_microbatch) {text, has_microbatch},
static const action_word words[MHP_ACTION_KIND_COUNT] = {MHP_ACTION_LIST(MHP_ACTION_WORD)};
#undef MHP_ACTION_WORD

mhp_status mhp_plan_create(int rank_count, int stage_count, int microbatch_count, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    size_t cells = (size_t)stage_count * (size_t)microbatch_count;

    if (rank_count < 1 || rank_count > MHP_RANKS_MAX || stage_count < 1 || stage_count > MHP_STAGES_MAX || microbatch_count < 1 ||
        microbatch_count > MHP_MICROBATCHES_MAX) {
        MHP_RAISE(out, MHP_ERR_LIMIT, "a plan of %d ranks, %d stages, %d micro-batches: expected 1 to %d, %d and %d", rank_count,
                  stage_count, microbatch_count, MHP_RANKS_MAX, MHP_STAGES_MAX, MHP_MICROBATCHES_MAX);
    }
    MHP_TRY(out, mhp_calloc(&plan, 1, sizeof *plan));
    plan->rank_count = rank_count;
    plan->stage_count = stage_count;
    plan->microbatch_count = microbatch_count;
    MHP_TRY(out, mhp_calloc(&plan->ranks, (size_t)rank_count, sizeof *plan->ranks));
    MHP_TRY(out, mhp_calloc(&plan->owner, cells, sizeof *plan->owner));
    memset(plan->owner, 0xff, cells * sizeof *plan->owner);
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

static void destroy_stages(mhp_rank_plan *rank)
{
    for (int i = 0; i < rank->stage_count; i++) {
        for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
            mhp_free(rank->stages[i].slot[c]);
        }
    }
    mhp_free(rank->stages);
}

void mhp_plan_destroy(mhp_plan *plan)
{
    if (!plan) {
        return;
    }
    for (int r = 0; plan->ranks && r < plan->rank_count; r++) {
        destroy_stages(&plan->ranks[r]);
        mhp_free(plan->ranks[r].actions.items);
    }
    mhp_free(plan->ranks);
    mhp_free(plan->owner);
    mhp_free(plan);
}

mhp_status mhp_action_list_append(mhp_action_list *list, const mhp_action *action)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;

        MHP_RETURN_IF_ERROR(mhp_realloc(&list->items, capacity, sizeof *list->items));
        list->capacity = capacity;
    }
    list->items[list->count++] = *action;
    return MHP_OK;
}

mhp_status mhp_plan_append(mhp_plan *plan, int rank, mhp_action action)
{
    assert(rank >= 0 && rank < plan->rank_count);
    return mhp_action_list_append(&plan->ranks[rank].actions, &action);
}

int mhp_plan_owner(const mhp_plan *plan, int stage, int microbatch)
{
    return plan->owner[(size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch];
}

static int compare_stages(const void *left, const void *right)
{
    const mhp_stage_slots *a = left;
    const mhp_stage_slots *b = right;

    return (a->stage > b->stage) - (a->stage < b->stage);
}

const mhp_stage_slots *mhp_plan_stage_slots(const mhp_plan *plan, int rank, int stage)
{
    const mhp_rank_plan *rank_plan = &plan->ranks[rank];
    const mhp_stage_slots key = {.stage = stage};

    if (rank_plan->stage_count == 0) {
        return NULL;
    }
    return bsearch(&key, rank_plan->stages, (size_t)rank_plan->stage_count, sizeof key, compare_stages);
}

int mhp_action_format(const mhp_action *action, char *text, size_t size)
{
    const action_word *word = &words[action->kind];

    if (action->kind == MHP_ACTION_OVERLAP_F_B) {
        return snprintf(text, size, "(%dF%d;%dB%d)OVERLAP_F_B", action->stage, action->microbatch, action->backward_stage,
                        action->backward_microbatch);
    }
    if (word->has_microbatch) {
        return snprintf(text, size, "%d%s%d", action->stage, word->text, action->microbatch);
    }
    return snprintf(text, size, "%d%s", action->stage, word->text);
}

/* Reads digits; false if there are none or they exceed `maximum`. */
static bool read_number(const char **text, int maximum, int *value_out)
{
    char *end;
    long value;

    if (**text < '0' || **text > '9') {
        return false;
    }
    value = strtol(*text, &end, 10);
    if (value > maximum) {
        return false;
    }
    *text = end;
    *value_out = (int)value;
    return true;
}

static mhp_status parse_error(const char *text, const char *expected)
{
    return mhp_error_set(MHP_ERR_FORMAT, "action \"%.64s\": expected %s", text, expected);
}

static mhp_status number_error(const char *text, const char *what, int maximum, const char *where)
{
    return mhp_error_set(MHP_ERR_FORMAT, "action \"%.64s\": expected %s from 0 to %d %s, as in 3F0", text, what, maximum, where);
}

/* "8F0" inside a pair's brackets. */
static bool read_half(const char **text, char word, int *stage_out, int *microbatch_out)
{
    return read_number(text, MHP_STAGES_MAX - 1, stage_out) && *(*text)++ == word &&
           read_number(text, MHP_MICROBATCHES_MAX - 1, microbatch_out);
}

static mhp_status parse_pair(const char *text, mhp_action *action_out)
{
    static const char *const expected = "one forward and one full backward, as in (0F8;7B0)OVERLAP_F_B";
    mhp_action action = {.kind = MHP_ACTION_OVERLAP_F_B};
    const char *at = text + 1;
    bool good = read_half(&at, 'F', &action.stage, &action.microbatch) && *at++ == ';' &&
                read_half(&at, 'B', &action.backward_stage, &action.backward_microbatch) && strcmp(at, ")OVERLAP_F_B") == 0;

    if (!good) {
        return parse_error(text, expected);
    }
    *action_out = action;
    return MHP_OK;
}

/* The kind that the word of `length` letters stands for, by whether a number follows it. */
static mhp_action_kind find_word(const char *text, size_t length, bool followed)
{
    for (int kind = 0; kind < MHP_ACTION_KIND_COUNT; kind++) {
        if (kind != MHP_ACTION_OVERLAP_F_B && followed == words[kind].has_microbatch &&
            strncmp(text, words[kind].text, length) == 0 && words[kind].text[length] == '\0') {
            return (mhp_action_kind)kind;
        }
    }
    return MHP_ACTION_KIND_COUNT;
}

mhp_status mhp_action_parse(const char *text, mhp_action *action_out)
{
    mhp_action action = {.microbatch = -1, .backward_stage = -1, .backward_microbatch = -1};
    const char *at = text;
    size_t length;

    if (*text == '(') {
        return parse_pair(text, action_out);
    }
    if (!read_number(&at, MHP_STAGES_MAX - 1, &action.stage)) {
        return number_error(text, "a stage", MHP_STAGES_MAX - 1, "first");
    }
    length = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    action.kind = find_word(at, length, at[length] != '\0');
    if (action.kind == MHP_ACTION_KIND_COUNT) {
        return parse_error(
            text, "one of F, B, I, W, R, SEND_F, RECV_F, SEND_B, RECV_B with a micro-batch, or REDUCE_GRAD, UNSHARD, RESHARD");
    }
    at += length;
    if (words[action.kind].has_microbatch && (!read_number(&at, MHP_MICROBATCHES_MAX - 1, &action.microbatch) || *at != '\0')) {
        return number_error(text, "a micro-batch", MHP_MICROBATCHES_MAX - 1, "at its end");
    }
    *action_out = action;
    return MHP_OK;
}
