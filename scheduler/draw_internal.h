/* What the SVG and HTML renderers share. */
#ifndef MHP_SCHEDULER_DRAW_INTERNAL_H
#define MHP_SCHEDULER_DRAW_INTERNAL_H

#include "scheduler/draw.h"

/* Where the grid lies, in pixels. */
typedef struct mhp_svg_page {
    double pixels_a_us;
    double left, top; /* of the first row */
    double row_height, row_gap;
    double grid_width, grid_height;
    double curves_top, curve_height, curve_gap; /* rows of curves below the grid; height 0 for none */
    double width, height;
} mhp_svg_page;

void mhp_svg_layout(const mhp_drawing *drawing, bool curves, mhp_svg_page *page_out);

/* The <svg> element. `details`: cells carry a class and data for a script. */
void mhp_svg_write(const mhp_drawing *drawing, const mhp_svg_page *page, bool details, FILE *stream);

/* Text with &, <, > and quotes escaped; control characters dropped. */
void mhp_svg_text(const char *text, FILE *stream);

#endif
