/* Faults on order, for tests: at a rank, step and action, or at a file. What is due is done where it would happen by itself: on the
 * compute stream, on the way of a message, in a call of the system. */
#ifndef MHP_RUNTIME_FAULT_H
#define MHP_RUNTIME_FAULT_H

#include "core/device.h"
#include "core/option.h"
#include "core/tensor.h"
#include "scheduler/plan.h"

typedef enum mhp_fault_kind {
    MHP_FAULT_KILL,                 /* SIGKILL of the own process */
    MHP_FAULT_HANG,                 /* the compute stream, or the writing thread, goes on no more */
    MHP_FAULT_SLOW,                 /* it sleeps */
    MHP_FAULT_CORRUPT,              /* a bit of the message is flipped on its way */
    MHP_FAULT_NAN,                  /* the first element of what the action makes is no number */
    MHP_FAULT_SHORT_WRITE,          /* a write takes half of what it was given */
    MHP_FAULT_DISK_FULL,            /* writes fail with ENOSPC from there on */
    MHP_FAULT_SYNC_FAILS,           /* fsync fails with EIO from there on */
} mhp_fault_kind;

typedef struct mhp_fault {
    int kind;
    int64_t rank;                   /* world rank */
    int64_t step;                   /* from 1; 0: every step */
    char *action;                   /* as a schedule writes it, "2F5"; "" : the first of the step that suits the kind */
    char *file;                     /* part of a path: the fault is at a change of such a file, not at an action; "" for none */
    double seconds;                 /* MHP_FAULT_SLOW */
} mhp_fault;

extern const mhp_option mhp_fault_options[];        /* of one */

typedef struct mhp_faults mhp_faults;

/* Those of `list`, of mhp_fault structs, which must outlive it, that are for this rank; *faults_out is NULL if there are none, which is
 * allowed everywhere here. Sets the process's hook of core/file.h if one is at a file. MHP_ERR_CONFIG for what cannot be. */
mhp_status mhp_faults_create(const mhp_section_list *list, int rank, mhp_faults **faults_out);
/* Whether each of `list`, whatever its rank, can happen in a run of `steps` steps with this plan, lowered, on `world_size` ranks, replica
 * after replica. MHP_ERR_CONFIG or MHP_ERR_FORMAT names the first that cannot. */
mhp_status mhp_faults_check(const mhp_section_list *list, const mhp_plan *plan, int world_size, int64_t steps);
void mhp_faults_destroy(mhp_faults *faults);

/* The run begins this step, from 1. */
void mhp_faults_enter(mhp_faults *faults, int64_t step);
/* The fault that is due at the action that comes next; once for each step that it is for. NULL if none. */
const mhp_fault *mhp_faults_due(mhp_faults *faults, const mhp_action *action);
/* Submits one of KILL, HANG, SLOW; with others it does nothing. */
mhp_status mhp_fault_submit(const mhp_fault *fault, mhp_stream *stream);
/* MHP_FAULT_NAN: spoils the first element at `target`, device memory. */
mhp_status mhp_fault_spoil(mhp_stream *stream, void *target, mhp_dtype dtype);

#endif
