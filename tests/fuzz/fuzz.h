/* What libFuzzer, or replay.c in its place, calls with each input; always returns 0. */
#ifndef MHP_TESTS_FUZZ_H
#define MHP_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
