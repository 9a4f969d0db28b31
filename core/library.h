/* Functions of a library that is looked for when the program runs, so that nothing links to it. */
#ifndef MHP_CORE_LIBRARY_H
#define MHP_CORE_LIBRARY_H

#include <stddef.h>

typedef struct mhp_library_symbol {
    const char *name;
    void *target; /* a pointer to a function, which is filled in */
} mhp_library_symbol;

/* Fills in the functions of a library that dlopen gave. The name of the first one that it has not, NULL if it has all. */
const char *mhp_library_bind(void *library, const mhp_library_symbol *symbols, size_t count);

#endif
