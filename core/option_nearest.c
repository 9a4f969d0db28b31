/* The known word that a wrong one was probably meant to be. */
#include "core/option_internal.h"

#include <string.h>

enum { WORD_MAX = 64, NOT_NEAR = 1000 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Edits (insert, remove, replace, swap of neighbours) from one word to the other; words longer than WORD_MAX are far from all. */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][WORD_MAX + 1];
    int a_length = (int)strnlen(a, WORD_MAX + 1), b_length = (int)strnlen(b, WORD_MAX + 1);

    if (a_length > WORD_MAX || b_length > WORD_MAX) {
        return NOT_NEAR;
    }
    for (int j = 0; j <= b_length; j++) {
        rows[0][j] = j;
    }
    for (int i = 1; i <= a_length; i++) {
        int *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];

        now[0] = i;
        for (int j = 1; j <= b_length; j++) {
            now[j] = least(least(before[j], now[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = least(now[j], earlier[j - 2] + 1);
            }
        }
    }
    return rows[a_length % 3][b_length];
}

/* A word is near if most of it is right. */
static int farthest_near(const char *word)
{
    size_t length = strlen(word);

    return length <= 2 ? 1 : length <= 5 ? 2 : 1 + (int)(length < WORD_MAX ? length : WORD_MAX) / 3;
}

typedef struct nearest_search {
    const mhp_option *here;
    const char *word;
    int distance;               /* of the best one so far */
    char *nearest;
} nearest_search;

static void search_table(nearest_search *search, const mhp_option *table, const char *prefix)
{
    char path[MHP_OPTION_PATH_MAX];

    for (const mhp_option *option = table; option->key; option++) {
        int distance = edit_distance(search->word, option->key) + (table != search->here);
        int length = snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", option->key);

        if (length >= (int)sizeof path) {
            continue;
        }
        if (distance < search->distance) {
            search->distance = distance;
            memcpy(search->nearest, path, (size_t)length + 1);
        }
        if (option->type == MHP_OPTION_SECTION || option->type == MHP_OPTION_SECTION_LIST) {
            search_table(search, option->section, path);
        }
    }
}

bool mhp_option_nearest_key(const mhp_option *table, const mhp_option *here, const char *word, char nearest[MHP_OPTION_PATH_MAX])
{
    int limit = farthest_near(word) + 1;
    nearest_search search = {.here = here, .word = word, .distance = limit, .nearest = nearest};

    search_table(&search, table, "");
    return search.distance < limit;
}

const char *mhp_option_nearest_choice(const mhp_option_choice *choices, const char *word)
{
    const char *nearest = NULL;
    int least_distance = farthest_near(word) + 1;

    for (const mhp_option_choice *choice = choices; choice->name; choice++) {
        int distance = edit_distance(word, choice->name);

        if (distance < least_distance) {
            least_distance = distance;
            nearest = choice->name;
        }
    }
    return nearest;
}
