/* Model folders: model.safetensors with every parameter under its global name, or several such files with an index, and config.json, in
 * Hugging Face's manner. A residual model is a Llama there; hc and mhc models carry their connections in the same file. */
#ifndef MHP_RUNTIME_MODEL_FILE_H
#define MHP_RUNTIME_MODEL_FILE_H

#include "runtime/store.h"

#define MHP_MODEL_INDEX_NAME "model.safetensors.index.json"

/* Writes DIR/model.safetensors and DIR/config.json, each under a temporary name, synced and renamed. Every rank calls; rank 0 writes
 * what the holders send. Blocks. What cannot be written is told to all
 * ranks alike; an error within the messages is of one rank alone, see mhp_comm_fail. The folder is made if it is missing. */
mhp_status mhp_model_save(mhp_store *store, const char *directory);

/* Opens DIR/model.safetensors or, where there is none, all files that the index names. */
mhp_status mhp_model_open(const char *directory, mhp_safetensors **file_out);

/* Reads this rank's part from such a folder; every rank reads by itself. */
mhp_status mhp_model_load(mhp_store *store, const char *directory);

/* Reads DIR/config.json into resolved parameters. Errors name the file, the key, and what was expected. */
mhp_status mhp_model_config_read(const char *directory, mhp_model_params *params_out);
/* Writes DIR/config.json. One rank. */
mhp_status mhp_model_config_write(const char *directory, const mhp_model_params *params);

#endif
