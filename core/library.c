#include "core/library.h"

#include <dlfcn.h>
#include <string.h>

const char *mhp_library_bind(void *library, const mhp_library_symbol *symbols, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(library, symbols[i].name);

        if (!found) {
            return symbols[i].name;
        }
        memcpy(symbols[i].target, &found, sizeof found);
    }
    return NULL;
}
