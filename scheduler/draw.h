/* Pictures of a simulated plan: one layout pass that knows no format, and a renderer a format.
 *
 * Rows are ranks and x is time. A box is a piece of work, a frame joins the two boxes of an overlapped pair, an arrow
 * is a message. */
#ifndef MHP_SCHEDULER_DRAW_H
#define MHP_SCHEDULER_DRAW_H

#include <stdio.h>

#include "scheduler/simulate.h"

/* Kind, its letter, what a legend calls it. */
#define MHP_BOX_LIST(X)                                                                                                \
    X(MHP_BOX_FORWARD, "F", "forward")                                                                                 \
    X(MHP_BOX_BACKWARD, "B", "full backward")                                                                          \
    X(MHP_BOX_INPUT_GRADIENT, "I", "input gradient")                                                                   \
    X(MHP_BOX_WEIGHT_GRADIENT, "W", "weight gradient")                                                                 \
    X(MHP_BOX_REBUILD, "R", "rebuild")                                                                                 \
    X(MHP_BOX_REDUCE, "A", "reduction of gradients")                                                                   \
    X(MHP_BOX_OPTIMIZER, "O", "optimizer")

#define MHP_BOX_ENUM(name, letter, text) name,
typedef enum mhp_box_kind { MHP_BOX_LIST(MHP_BOX_ENUM) MHP_BOX_KIND_COUNT } mhp_box_kind;
#undef MHP_BOX_ENUM

const char *mhp_box_letter(mhp_box_kind kind);
const char *mhp_box_words(mhp_box_kind kind);
/* Colours of a box and of the text in it, as CSS has them; shade is 0 or 1. */
const char *mhp_box_fill(mhp_box_kind kind, int shade);
const char *mhp_box_text_fill(mhp_box_kind kind, int shade);

typedef struct mhp_draw_box {
    mhp_box_kind kind;
    int rank;
    int stage, microbatch;   /* -1 where they mean nothing */
    int shade;               /* 0 or 1: direction in which the micro-batch runs, or the stage's place on the rank */
    bool critical;           /* part of the critical path */
    size_t position;         /* in the rank's list; a pair has two boxes of one position */
    double start_us, end_us; /* the boxes of a pair part its time by the times of their halves */
} mhp_draw_box;

typedef struct mhp_draw_frame {
    int rank;
    double start_us, end_us;
} mhp_draw_frame;

typedef struct mhp_draw_arrow {
    bool gradient;
    int from_rank, to_rank, stage, microbatch; /* the stage that sends */
    double start_us, end_us;
} mhp_draw_arrow;

typedef struct mhp_draw_tick {
    double time_us;
    char label[32];
} mhp_draw_tick;

/* The curve keeps its value up to the next point. */
typedef struct mhp_draw_point {
    double time_us, value;
} mhp_draw_point;

typedef struct mhp_draw_curve {
    mhp_draw_point *points;
    size_t count;
    double peak;
} mhp_draw_curve;

typedef struct mhp_drawing {
    char title[160], subtitle[160];
    char shades[80];    /* what the two shades tell apart; "" if there is one */
    char time_unit[16]; /* "us"; "" for unit costs */
    int rank_count;
    double end_us;       /* the makespan */
    double unit_us;      /* a third of a typical micro-batch's work in a stage: the width of a cell */
    mhp_draw_box *boxes; /* rank by rank, in the order of the list */
    size_t box_count;
    mhp_draw_frame *frames;
    size_t frame_count;
    mhp_draw_arrow *arrows;
    size_t arrow_count;
    mhp_draw_tick *ticks;
    size_t tick_count;
    double *bubble;         /* [rank], of the makespan, 0 to 1 */
    mhp_draw_curve *curves; /* [rank]: what it keeps */
    bool curve_is_bytes;    /* else micro-batches, since the costs know no bytes */
    double curve_peak;      /* of all ranks */
} mhp_drawing;

typedef struct mhp_draw_params {
    const mhp_plan *plan;
    const mhp_costs *costs;
    const mhp_simulation *simulation;
    const char *time_unit;
    bool arrows; /* of a lowered plan's messages */
} mhp_draw_params;

enum { MHP_DRAW_BOXES_MAX = 1000000 };

/* MHP_ERR_LIMIT for more than MHP_DRAW_BOXES_MAX actions. Release in every case; zeroed is allowed. */
mhp_status mhp_draw(const mhp_draw_params *params, mhp_drawing *drawing_out);
void mhp_drawing_release(mhp_drawing *drawing);

/* For a terminal: a row a rank; an action has the width of its time, cut to it if it is longer. Needs the plan for the
 * actions' own words. All renderers: MHP_ERR_IO. */
mhp_status mhp_draw_ascii(const mhp_drawing *drawing, FILE *stream);
/* How many columns the widest row has. */
size_t mhp_draw_ascii_columns(const mhp_drawing *drawing);
/* The grid that papers show. */
mhp_status mhp_draw_svg(const mhp_drawing *drawing, FILE *stream);
/* One file that needs no network: the grid with details under the pointer, zoom, and what each rank keeps over time. */
mhp_status mhp_draw_html(const mhp_drawing *drawing, FILE *stream);

#endif
