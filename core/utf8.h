/* Text in UTF-8, strictly as RFC 3629 has it. */
#ifndef MHP_CORE_UTF8_H
#define MHP_CORE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Decodes the character that `text` begins with. Returns its bytes, 1..4, or 0 if there are `length` 0 bytes, or ones that are no
 * character: cut off, longer than needed, a surrogate, above U+10FFFF. */
size_t mhp_utf8_decode(const char *text, size_t length, uint32_t *code_out);

/* Writes `text` between double quotes, as YAML and JSON read it back: quotes, backslashes and what is not printable are escaped. A byte
 * that belongs to no character becomes '?'; false if there was one. */
bool mhp_utf8_write_quoted(const char *text, FILE *stream);

#endif
