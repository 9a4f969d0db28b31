#include "runtime/diagnosis.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

enum { HOPS_SHOWN_MAX = 4 };

/* Places are not taken at one moment: what lasts for less than this may have ended before the last of them was. */
static const double long_s = 1;

typedef struct sentence {
    char *text;
    size_t length;
} sentence;

static void say(sentence *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(sentence *out, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(out->text + out->length, MHP_DIAGNOSIS_TEXT_MAX - out->length, format, arguments);
    va_end(arguments);
    out->length += (size_t)length;
    if (out->length >= MHP_DIAGNOSIS_TEXT_MAX) {
        out->length = MHP_DIAGNOSIS_TEXT_MAX - 1;
    }
}

static bool waits(const mhp_rank_view *rank)
{
    int kind = rank->place.mark.kind;

    return rank->state == MHP_RANK_PRESENT && (kind == MHP_MARK_INPUT || kind == MHP_MARK_SLOT || kind == MHP_MARK_ALL);
}

/* Whether a rank is behind one that waits for all: in an earlier section, or not waiting for all itself. */
static bool is_behind(const mhp_rank_view *rank, const mhp_place *place)
{
    if (rank->state != MHP_RANK_PRESENT) {
        return true;
    }
    if (rank->place.section != place->section || rank->place.number != place->number) {
        return rank->place.number < place->number || rank->place.section < place->section;
    }
    return rank->place.mark.kind != MHP_MARK_ALL || rank->place.mark.work < place->mark.work;
}

/* How well a rank explains that others wait: one that is gone, then one that works, then one that waits itself. */
static double blame(const mhp_rank_view *rank)
{
    static const double gone = 1e12, working = 1e6;

    if (rank->state != MHP_RANK_PRESENT) {
        return gone;
    }
    return waits(rank) ? 0 : working + (rank->place.mark.kind == MHP_MARK_RUN ? rank->place.mark_s : rank->place.section_s);
}

/* The rank to blame most of all, or of those behind `place`; -1 if there is none. */
static int most_blamed(const mhp_rank_view *ranks, int count, const mhp_place *place)
{
    int found = -1;

    for (int i = 0; i < count; i++) {
        if ((!place || is_behind(&ranks[i], place)) && (found < 0 || blame(&ranks[i]) > blame(&ranks[found]))) {
            found = i;
        }
    }
    return found;
}

/* Whom a waiting rank waits for; -1: nobody who could be named. */
static int awaited(const mhp_rank_view *ranks, int count, int rank)
{
    const mhp_place *place = &ranks[rank].place;

    if (place->mark.kind == MHP_MARK_ALL) {
        return most_blamed(ranks, count, place);
    }
    return place->mark.peer >= 0 && place->mark.peer < count ? place->mark.peer : -1;
}

static void say_wait(sentence *out, const mhp_place *place)
{
    const mhp_mark *mark = &place->mark;
    const char *message = mark->work == MHP_WORK_FORWARD ? "state" : "gradient";
    char work[MHP_PLACE_TEXT_MAX];

    switch (mark->kind) {
    case MHP_MARK_INPUT:
        say(out, "waits for the %s of micro-batch %d for stage %d from ", message, (int)mark->microbatch, (int)mark->stage);
        break;
    case MHP_MARK_SLOT:
        say(out, "cannot begin %s of stage %d, micro-batch %d until an earlier %s is taken by ", mhp_work_text(mark->work), (int)mark->stage,
            (int)mark->microbatch, message);
        break;
    default:
        mhp_work_format(mark, work);
        say(out, "waits in %s for ", work);
        break;
    }
}

static void say_end(sentence *out, const mhp_rank_view *rank)
{
    char place[MHP_PLACE_TEXT_MAX];

    mhp_place_format(&rank->place, place);
    switch (rank->state) {
    case MHP_RANK_UNKNOWN:
        say(out, "of which nothing is known: it is stopped or lost");
        break;
    case MHP_RANK_LOST:
        say(out, "which was lost in %s", place);
        break;
    case MHP_RANK_SILENT:
        say(out, "which has given no sign of life for %.1f s (it is stopped, or its host or network hangs) and was last in %s",
            rank->silent_s, place);
        break;
    case MHP_RANK_PRESENT:
        say(out, "which has been in %s for %.1f s", place,
            rank->place.mark.kind == MHP_MARK_NONE ? rank->place.section_s : rank->place.mark_s);
        break;
    }
}

/* Where a search for the cause starts: at the rank that waits for longest; -1 if none waits. */
static int longest_waiting(const mhp_rank_view *ranks, int count)
{
    int found = -1;

    for (int i = 0; i < count; i++) {
        if (waits(&ranks[i]) && (found < 0 || ranks[i].place.mark_s > ranks[found].place.mark_s)) {
            found = i;
        }
    }
    return found;
}

/* Whether a rank has been where it is for long enough to say anything of it. */
static bool is_long(const mhp_rank_view *rank)
{
    return rank->state != MHP_RANK_PRESENT ||
           (rank->place.mark.kind == MHP_MARK_NONE ? rank->place.section_s : rank->place.mark_s) >= long_s;
}

/* Whether each of the waits that follow from a rank's is long; of what all take part in, each one's. */
static bool waits_long(const mhp_rank_view *ranks, int count, int rank)
{
    for (int hop = 0; hop <= count && rank >= 0; hop++) {
        if (!is_long(&ranks[rank])) {
            return false;
        }
        rank = waits(&ranks[rank]) ? awaited(ranks, count, rank) : -1;
    }
    for (int i = 0; i < count; i++) {
        if (waits(&ranks[i]) && ranks[i].place.mark.kind == MHP_MARK_ALL && !is_long(&ranks[i])) {
            return false;
        }
    }
    return true;
}

/* The waits go in a circle or end nowhere, but are too short to mean it. */
static int say_it_moves(sentence *out, const mhp_rank_view *longest)
{
    if (is_long(longest)) {
        say(out, "%s has waited for %.1f s, but the ranks that it waits for have not waited long: the run moves", longest->name,
            longest->place.mark_s);
    } else {
        say(out, "no rank has waited long: the run moves");
    }
    return -1;
}

/* Nobody waits: the one that is gone, or has been at its work for longest. */
static int say_without_waits(sentence *out, const mhp_rank_view *ranks, int count)
{
    int found = most_blamed(ranks, count, NULL);

    if (found >= 0 && !is_long(&ranks[found])) {
        say(out, "no rank has waited long: the run moves");
        return -1;
    }
    if (found >= 0) {
        say(out, "no rank waits for another: the one to look at is %s, ", ranks[found].name);
        say_end(out, &ranks[found]);
    }
    return found;
}

/* Follows the waits to their end; *hops_out is how many there are. -1: they go in a circle. */
static int end_of_chain(const mhp_rank_view *ranks, int count, int rank, int *hops_out)
{
    for (*hops_out = 0; *hops_out <= count; ++*hops_out) {
        int next = waits(&ranks[rank]) ? awaited(ranks, count, rank) : -1;

        if (next < 0) {
            return rank;
        }
        rank = next;
    }
    return -1;
}

int mhp_diagnose(const mhp_rank_view *ranks, int count, char text[MHP_DIAGNOSIS_TEXT_MAX])
{
    sentence out = {text, 0};
    int rank = longest_waiting(ranks, count);
    int end, hops, shown;

    text[0] = '\0';
    if (rank < 0) {
        return say_without_waits(&out, ranks, count);
    }
    end = end_of_chain(ranks, count, rank, &hops);
    if ((end < 0 || waits(&ranks[end])) && !waits_long(ranks, count, rank)) {
        return say_it_moves(&out, &ranks[rank]);
    }
    shown = hops < HOPS_SHOWN_MAX ? hops : HOPS_SHOWN_MAX;
    say(&out, "%s ", ranks[rank].name);
    for (int hop = 0; hop < shown; hop++) {
        say_wait(&out, &ranks[rank].place);
        rank = awaited(ranks, count, rank);
        say(&out, "%s, %s", ranks[rank].name, hop + 1 < shown ? "which " : "");
    }
    if (end < 0) {
        say(&out, "and so on in a circle: a message between them is lost, or the schedule cannot run");
        return -1;
    }
    if (hops > shown) {
        say(&out, "and so on until %s, ", ranks[end].name);
    }
    if (!waits(&ranks[end])) {
        say_end(&out, &ranks[end]);
        return end;
    }
    say(&out, "%s", hops > 0 ? "which " : "");
    say_wait(&out, &ranks[end].place);
    say(&out, "all ranks, of which none is behind: what they do together makes no end");
    return -1;
}
