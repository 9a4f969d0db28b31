/* TensorBoard event files: records with checksums (TFRecord) that hold one protocol buffer `Event` each, here with scalars. */
#ifndef MHP_RUNTIME_TENSORBOARD_H
#define MHP_RUNTIME_TENSORBOARD_H

#include "runtime/scalars.h"

typedef struct mhp_tensorboard mhp_tensorboard;

/* Opens a file of its own in DIRECTORY/tensorboard, which is made if it is missing. With a `first_step` above 0 TensorBoard is told to
 * forget what earlier files have of later steps. One rank. Close ends it; NULL is allowed there. */
mhp_status mhp_tensorboard_open(const char *directory, int64_t first_step, mhp_tensorboard **board_out);
void mhp_tensorboard_close(mhp_tensorboard *board);
/* Appends the scalars of a step, counted from 1. What is not finite is written as it is. A full disk is an error that names the file. */
mhp_status mhp_tensorboard_write(mhp_tensorboard *board, int64_t step, const mhp_scalar *scalars, int count);
const char *mhp_tensorboard_path(const mhp_tensorboard *board);

#endif
