#include "runtime/place.h"

#include <stdio.h>

static const char *name_of(const char *const *names, int count, int value)
{
    return value >= 0 && value < count ? names[value] : "?";
}

const char *mhp_section_text(int section)
{
    static const char *const names[MHP_SECTION_COUNT] = {"start", "step", "evaluation", "save", "end"};

    return name_of(names, MHP_SECTION_COUNT, section);
}

const char *mhp_mark_kind_text(int kind)
{
    static const char *const names[MHP_MARK_KIND_COUNT] = {"none", "input", "slot", "all", "run"};

    return name_of(names, MHP_MARK_KIND_COUNT, kind);
}

const char *mhp_work_text(int work)
{
    static const char *const names[MHP_WORK_COUNT] = {"F", "R", "I", "W", "optimizer", "norm", "statistics"};

    return name_of(names, MHP_WORK_COUNT, work);
}

void mhp_work_format(const mhp_mark *mark, char text[MHP_PLACE_TEXT_MAX])
{
    switch (mark->work) {
    case MHP_WORK_OPTIMIZER:
        snprintf(text, MHP_PLACE_TEXT_MAX, "the optimizer");
        break;
    case MHP_WORK_NORM:
        snprintf(text, MHP_PLACE_TEXT_MAX, "the sum of gradients");
        break;
    case MHP_WORK_STATISTICS:
        snprintf(text, MHP_PLACE_TEXT_MAX, "the step's statistics");
        break;
    default:
        snprintf(text, MHP_PLACE_TEXT_MAX, "%s of stage %d, micro-batch %d", mhp_work_text(mark->work), (int)mark->stage,
                 (int)mark->microbatch);
        break;
    }
}

void mhp_place_format(const mhp_place *place, char text[MHP_PLACE_TEXT_MAX])
{
    char work[MHP_PLACE_TEXT_MAX];
    int length;

    switch (place->section) {
    case MHP_SECTION_STEP:
        length = snprintf(text, MHP_PLACE_TEXT_MAX, "step %lld", (long long)place->number);
        break;
    case MHP_SECTION_EVALUATION:
    case MHP_SECTION_SAVE:
        length = snprintf(text, MHP_PLACE_TEXT_MAX, "the %s behind step %lld", mhp_section_text(place->section), (long long)place->number);
        break;
    default:
        length = snprintf(text, MHP_PLACE_TEXT_MAX, "the %s", mhp_section_text(place->section));
        break;
    }
    if (place->mark.kind != MHP_MARK_NONE) {
        mhp_work_format(&place->mark, work);
        snprintf(text + length, (size_t)(MHP_PLACE_TEXT_MAX - length), " %s %s", place->mark.kind == MHP_MARK_RUN ? "in" : "before", work);
    }
}
