#include "runtime/checkpoint/aside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/folder.h"
#include "core/memory.h"
#include "runtime/checkpoint/catalog.h"

static const char prefix[] = "abandoned-";

/* ---- names ---- */

/* The number under which a name was put aside; 0 for another name. */
static int number_of_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    int number = dot && dot[1 + strspn(dot + 1, "0123456789")] == '\0' ? atoi(dot + 1) : 1;

    return strncmp(name, prefix, sizeof prefix - 1) == 0 ? number : 0;
}

static mhp_status raise_number(const char *folder, int *number)
{
    mhp_folder_list list = {0};
    mhp_status status = mhp_folder_read(folder, &list);

    for (size_t i = 0; i < list.count; i++) {
        int found = number_of_name(list.names[i]);

        *number = found > *number ? found : *number;
    }
    mhp_folder_release(&list);
    return status;
}

/* One behind the highest that was given, so that what is put aside at once is alike. */
static mhp_status choose_suffix(const char *run, char suffix[16])
{
    mhp_status status = MHP_OK;
    char *folder = NULL;
    int number = 0;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/checkpoints", run));
    MHP_TRY(out, raise_number(run, &number));
    MHP_TRY(out, raise_number(folder, &number));
    suffix[0] = '\0';
    if (number > 0) {
        snprintf(suffix, 16, ".%d", number + 1);
    }
out:
    mhp_free(folder);
    return status;
}

/* ---- moving ---- */

static mhp_status put_checkpoint_aside(const char *run, int64_t step, const char *suffix)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *aside = NULL;

    MHP_TRY(out, mhp_catalog_path(run, step, &path));
    MHP_TRY(out, mhp_asprintf(&aside, "%s/checkpoints/%s%s%s", run, prefix, strrchr(path, '/') + 1, suffix));
    MHP_TRY(out, mhp_folder_rename(path, aside));
out:
    mhp_free(aside);
    mhp_free(path);
    return status;
}

/* What is not there is fine. */
static mhp_status put_name_aside(const char *run, const char *name, const char *suffix)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *aside = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", run, name));
    MHP_TRY(out, mhp_asprintf(&aside, "%s/%s%s%s", run, prefix, name, suffix));
    if (mhp_file_exists(path)) {
        MHP_TRY(out, mhp_folder_rename(path, aside));
    }
out:
    mhp_free(aside);
    mhp_free(path);
    return status;
}

/* From the oldest on: a start that is cut short leaves the newest, which --resume auto takes. */
static mhp_status put_checkpoints_aside(const char *run, int64_t step, mhp_aside *aside)
{
    mhp_status status = MHP_OK;
    int64_t *steps = NULL;
    size_t count = 0;

    MHP_TRY(out, mhp_catalog_steps(run, &steps, &count));
    for (size_t i = 0; i < count; i++) {
        if (steps[i] > step) {
            MHP_TRY(out, put_checkpoint_aside(run, steps[i], aside->suffix));
            aside->any = true;
            aside->newest = steps[i];
            aside->checkpoints++;
        }
    }
out:
    mhp_free(steps);
    return status;
}

mhp_status mhp_put_aside_after(const char *run, int64_t step, mhp_aside *aside_out)
{
    *aside_out = (mhp_aside){.any = false};
    MHP_RETURN_IF_ERROR(choose_suffix(run, aside_out->suffix));
    return put_checkpoints_aside(run, step, aside_out);
}

/* ---- a whole run ---- */

static mhp_status has_results(const char *run, bool *has_out)
{
    mhp_status status = MHP_OK;
    char *metrics = NULL, *best = NULL;
    struct stat found;

    MHP_TRY(out, mhp_asprintf(&metrics, "%s/metrics.jsonl", run));
    MHP_TRY(out, mhp_asprintf(&best, "%s/best/config.json", run));
    *has_out = mhp_file_exists(best) || (stat(metrics, &found) == 0 && found.st_size > 0);
out:
    mhp_free(best);
    mhp_free(metrics);
    return status;
}

mhp_status mhp_put_aside_run(const char *run, mhp_aside *aside_out)
{
    static const char *const names[] = {"metrics.jsonl", "summary.json", "config.resolved.yaml", "best"};
    bool has = false;

    MHP_RETURN_IF_ERROR(mhp_put_aside_after(run, -1, aside_out));
    MHP_RETURN_IF_ERROR(has_results(run, &has));
    aside_out->any |= has;
    for (size_t i = 0; aside_out->any && i < sizeof names / sizeof *names; i++) {
        MHP_RETURN_IF_ERROR(put_name_aside(run, names[i], aside_out->suffix));
    }
    return MHP_OK;
}
