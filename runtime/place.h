/* Where a rank is: a section of the run, and in it what its compute stream does or waits for. Pure. */
#ifndef MHP_RUNTIME_PLACE_H
#define MHP_RUNTIME_PLACE_H

#include <stddef.h>
#include <stdint.h>

typedef enum mhp_section {
    MHP_SECTION_START,              /* from the first connection to the first step */
    MHP_SECTION_STEP,               /* number: the step, from 1 */
    MHP_SECTION_EVALUATION,         /* behind that step; one batch */
    MHP_SECTION_SAVE,               /* waits for the checkpoint before, and copies */
    MHP_SECTION_END,
    MHP_SECTION_COUNT
} mhp_section;

typedef enum mhp_work {
    MHP_WORK_FORWARD,               /* the first four are mhp_pass */
    MHP_WORK_REBUILD,
    MHP_WORK_INPUT_GRADIENT,
    MHP_WORK_WEIGHT_GRADIENT,
    MHP_WORK_OPTIMIZER,
    MHP_WORK_NORM,                  /* summing the gradients over ranks */
    MHP_WORK_STATISTICS,            /* summing up what the step measured */
    MHP_WORK_COUNT
} mhp_work;

typedef enum mhp_mark_kind {
    MHP_MARK_NONE,
    MHP_MARK_INPUT,                 /* waits for the message that the work needs, from `peer` */
    MHP_MARK_SLOT,                  /* waits until `peer` has taken an earlier message out of the slot that the work fills */
    MHP_MARK_ALL,                   /* waits for something that all ranks take part in */
    MHP_MARK_RUN,                   /* does the work */
    MHP_MARK_KIND_COUNT
} mhp_mark_kind;

/* A point of a compute stream. stage, microbatch and peer (a world rank) are -1 where they mean nothing. */
typedef struct mhp_mark {
    int32_t kind, work, stage, microbatch, peer;
} mhp_mark;

typedef struct mhp_place {
    int32_t section;
    int64_t number;
    mhp_mark mark;                  /* kind MHP_MARK_NONE outside of actions */
    double section_s, mark_s;       /* for how long */
} mhp_place;

/* "start", "input", "F": as in dumps and texts; static storage, "?" for a value that is none. */
const char *mhp_section_text(int section);
const char *mhp_mark_kind_text(int kind);
const char *mhp_work_text(int work);

enum { MHP_PLACE_TEXT_MAX = 160 };

/* "F of stage 3, micro-batch 5", "the optimizer". */
void mhp_work_format(const mhp_mark *mark, char text[MHP_PLACE_TEXT_MAX]);
/* "step 17 in F of stage 3, micro-batch 5", "the start". */
void mhp_place_format(const mhp_place *place, char text[MHP_PLACE_TEXT_MAX]);

#endif
