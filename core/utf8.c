#include "core/utf8.h"

#include <string.h>

/* Bytes of the character that a first byte announces; 0 for a byte that cannot be first. */
static size_t announced_bytes(unsigned char first)
{
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xc2 && first < 0xe0) {
        return 2;
    }
    if (first >= 0xe0 && first < 0xf0) {
        return 3;
    }
    return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

size_t mhp_utf8_decode(const char *text, size_t length, uint32_t *code_out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    static const unsigned char mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t bytes = length > 0 ? announced_bytes((unsigned char)text[0]) : 0;
    uint32_t code;

    if (bytes == 0 || bytes > length) {
        return 0;
    }
    code = (unsigned char)text[0] & mask[bytes];
    for (size_t i = 1; i < bytes; i++) {
        unsigned char next = (unsigned char)text[i];

        if ((next & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (next & 0x3f);
    }
    if (code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        return 0;
    }
    *code_out = code;
    return bytes;
}

/* What YAML takes unescaped between double quotes. */
static bool is_printable(uint32_t code)
{
    return (code >= 0x20 && code < 0x7f) || (code >= 0xa0 && code < 0xfffe && code != 0x2028 && code != 0x2029 && code != 0xfeff) ||
           code >= 0x10000;
}

bool mhp_utf8_write_quoted(const char *text, FILE *stream)
{
    size_t length = strlen(text);
    bool is_valid = true;

    fputc('"', stream);
    for (size_t i = 0; i < length;) {
        uint32_t code = '?';
        size_t bytes = mhp_utf8_decode(text + i, length - i, &code);

        if (bytes == 0) {
            fputc('?', stream);
            is_valid = false;
        } else if (code == '"' || code == '\\') {
            fprintf(stream, "\\%c", (char)code);
        } else if (is_printable(code)) {
            fwrite(text + i, 1, bytes, stream);
        } else {
            fprintf(stream, "\\u%04X", code);       /* all above U+FFFF is printable */
        }
        i += bytes > 0 ? bytes : 1;
    }
    fputc('"', stream);
    return is_valid;
}
