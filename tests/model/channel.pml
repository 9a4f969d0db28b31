/* Channels and the end of a run, for Spin: RANKS ranks (2 or 3) train MICROBATCHES micro-batches in 1F1B order, any of up to FAILURES of
 * them fails at any moment, and the run ends. run.sh says with which numbers, and with which mutations Spin must find an error.
 *
 * What stands for what:
 *   compute        the compute stream of a rank, in the plan's order (scheduler/, runtime/executor.c); one step is one action
 *   send, receive  a channel's stream on either side (comm/mpi/channel.c): a receive is posted as soon as its slot is free
 *   wire           MPI between the ends of a channel, in order: WIRE 0 is a rendezvous, more is eager
 *   slot           a message's place with its two events: is_full stands for is_ready, else for is_free
 *   notice         the failure notice on the control communicator; watch, the comm thread that takes it and poisons the device
 *   launcher       ends every rank at some moment after one has ended with an error
 * Every wait also ends when the rank's device is poisoned.
 *
 * Checked: no invalid end state (a process that waits for ever); every message is read once, in order, and no slot is filled before it
 * is free; none is left on a wire; after a failure every rank ends with an error, and one that failed has reported. */

#ifndef RANKS
#define RANKS 2
#endif
#ifndef MICROBATCHES
#define MICROBATCHES 3
#endif
#ifndef WIRE
#define WIRE 0
#endif
#ifndef FAILURES
#define FAILURES 1
#endif

#define EDGES     (RANKS - 1)
#define CHANNELS  (2 * EDGES)       /* states of edge e: channel e, gradients: EDGES + e */
#define SOURCE(c) (c < EDGES -> c : c - EDGES + 1)
#define TARGET(c) (c < EDGES -> c + 1 : c - EDGES)
#define IN_SLOTS  (RANKS - 1)       /* micro-batches in flight on the second rank */

#ifdef MUTATE_DEAF                  /* a notice does not end the compute stream's waits */
#define HEARD(r)  false
#else
#define HEARD(r)  poisoned[r]
#endif

/* Variables that are done with go back to 0: states that differ in them alone are one. */
typedef slots {
    bit is_full[RANKS];
    byte message[RANKS];
};

slots in[CHANNELS];                 /* on the target: [IN_SLOTS] */
bit out_is_full[CHANNELS];          /* on the source: one slot */
byte out_message[CHANNELS];
chan wire[CHANNELS] = [WIRE] of { byte };
chan notice[RANKS] = [RANKS] of { byte };

bool poisoned[RANKS];               /* the device's streams end; also when the process does */
bool ended[RANKS], well[RANKS];
bool reported, killed;
byte lowest[RANKS];                 /* rank whose notice came in; RANKS if none did */
byte failures, arrived, messages_read;

/* ---- the streams of channels ---- */

proctype send(byte c)
{
    byte m = 0;

end_of_stream:                      /* of a poisoned device it skips all that is left */
    do
    :: atomic { m == MICROBATCHES -> m = 0; break }
    :: atomic {
            m < MICROBATCHES && !poisoned[SOURCE(c)] && out_is_full[c] ->
            assert(out_message[c] == m);
            if
            :: wire[c]!m -> out_is_full[c] = 0; m++
            :: poisoned[SOURCE(c)] -> m = 0; break
            fi
        }
    od
}

#ifdef MUTATE_EARLY                 /* posted before the slot is free */
#define MAY_POST(c, slot) true
#else
#define MAY_POST(c, slot) !in[c].is_full[slot]
#endif

proctype receive(byte c)
{
    byte m = 0, came;

end_of_stream:                      /* of a poisoned device it skips all that is left */
    do
    :: atomic { m == MICROBATCHES -> m = 0; break }
    :: atomic {
            m < MICROBATCHES && !poisoned[TARGET(c)] && MAY_POST(c, m % IN_SLOTS) ->
            if
            :: wire[c]?came ->
                assert(!in[c].is_full[m % IN_SLOTS]);       /* what nobody has read is not overwritten */
                in[c].message[m % IN_SLOTS] = came;
                in[c].is_full[m % IN_SLOTS] = 1;
                came = 0;
                m++
            :: poisoned[TARGET(c)] -> m = 0; break
            fi
        }
    od
}

/* ---- a rank ---- */

/* An action runs when its message is there and the slot free that it fills: once true, both stay so. */
#define IS_THERE(c, m)      in[c].is_full[(m) % IN_SLOTS]
#ifdef SHUTDOWN_ONLY                /* messages are left out: an action may run at any time */
#define CAN_FORWARD(r, m)   true
#define CAN_BACKWARD(r, m)  true
#else
#define CAN_FORWARD(r, m)   ((r == 0 || IS_THERE(r - 1, m)) && (r == RANKS - 1 || !out_is_full[r]))
#define CAN_BACKWARD(r, m)  ((r == RANKS - 1 || IS_THERE(EDGES + r, m)) && (r == 0 || !out_is_full[EDGES + r - 1]))
#endif
#define TURN_OF_FORWARD(r)  (f < MICROBATCHES && f - b < RANKS - r)

inline read_message(c, m)
{
    assert(in[c].message[(m) % IN_SLOTS] == m);
    messages_read++
}

inline fill_message(c, m)
{
    out_message[c] = m;
    out_is_full[c] = 1
}

inline forward(r, m)
{
#ifndef SHUTDOWN_ONLY
    if :: r > 0 -> read_message(r - 1, m) :: else -> skip fi;
    if :: r < RANKS - 1 -> fill_message(r, m) :: else -> skip fi
#else
    skip
#endif
}

/* The state that came in is kept until here. */
inline backward(r, m)
{
#ifndef SHUTDOWN_ONLY
    if
    :: r < RANKS - 1 -> read_message(EDGES + r, m); in[EDGES + r].is_full[(m) % IN_SLOTS] = 0
    :: else -> skip
    fi;
    if
    :: r > 0 -> fill_message(EDGES + r - 1, m); in[r - 1].is_full[(m) % IN_SLOTS] = 0
    :: else -> skip
    fi
#else
    skip
#endif
}

proctype compute(byte r)
{
    byte f = 0, b = 0, q = 0;

    do
    :: atomic { b == MICROBATCHES -> arrived++; f = 0; b = 0; break }
    :: atomic { b < MICROBATCHES && failures < FAILURES -> failures++; f = 0; b = 0; goto failed }
    :: atomic { b < MICROBATCHES && HEARD(r) -> f = 0; b = 0; goto told }
    :: atomic { b < MICROBATCHES && TURN_OF_FORWARD(r) && CAN_FORWARD(r, f) -> forward(r, f); f++ }
    :: atomic { b < MICROBATCHES && !TURN_OF_FORWARD(r) && CAN_BACKWARD(r, b) -> backward(r, b); b++ }
    od;
    if                              /* the last agreement: nobody leaves before all have come */
    :: atomic { arrived == RANKS -> well[r] = true; goto left }
    :: HEARD(r) -> goto told
    fi;

failed:                             /* mhp_comm_fail: the lowest of the ranks that failed reports, the others end after it */
    atomic {
        do
        :: q < RANKS ->
            if :: q != r -> notice[q]!r :: else -> skip fi;
            q++
        :: else -> break
        od;
        q = 0
    }
    if
    :: atomic { r < lowest[r] && !killed -> reported = true; goto left }
    :: r > lowest[r] || killed -> skip
    fi;
told:
#ifndef MUTATE_HASTE                /* whoever does not report ends at once; the grace is time in the program, a condition here */
    reported || killed;
#endif
left:
    atomic { poisoned[r] = true; ended[r] = true }
}

/* Of several notices the lowest rank's counts. */
proctype watch(byte r)
{
    byte q;

    do
    :: atomic {
            notice[r]?q ->
            if :: q < lowest[r] -> lowest[r] = q :: else -> skip fi;
            q = 0;
            poisoned[r] = true
        }
    :: ended[r] -> break
    od
}

/* ---- the whole ---- */

#if RANKS == 2
#define ALL_ENDED   (ended[0] && ended[1])
#define ANY_BROKEN  ((ended[0] && !well[0]) || (ended[1] && !well[1]))
#else
#define ALL_ENDED   (ended[0] && ended[1] && ended[2])
#define ANY_BROKEN  ((ended[0] && !well[0]) || (ended[1] && !well[1]) || (ended[2] && !well[2]))
#endif

proctype launcher()
{
    do
    :: atomic { ANY_BROKEN -> killed = true; break }
    :: ALL_ENDED -> break
    od
}

proctype judge()
{
    byte r = 0;

    d_step {
        ALL_ENDED ->
        do
        :: r < RANKS ->
            assert(well[r] == (failures == 0));
            r++
        :: else -> break
        od;
        assert(failures == 0 || reported);
#ifndef SHUTDOWN_ONLY
        assert(failures > 0 || messages_read == CHANNELS * MICROBATCHES);
#endif
        r = 0;
        do
        :: r < CHANNELS ->
            assert(failures > 0 || empty(wire[r]));
            r++
        :: else -> break
        od
    }
}

init {
    byte i = 0;

    d_step {
        do
        :: i < RANKS -> lowest[i] = RANKS; i++
        :: else -> break
        od;
        i = 0
    }
    atomic {
#ifndef SHUTDOWN_ONLY
        do
        :: i < CHANNELS -> run send(i); run receive(i); i++
        :: else -> break
        od;
#endif
        i = 0;
        do
        :: i < RANKS -> run compute(i); run watch(i); i++
        :: else -> break
        od;
        run launcher();
        run judge()
    }
}
