#include "launch/session.h"

#include <stdio.h>

static mhp_status open_device(mhp_session *session, mhp_status status)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1}; /* enough to tell the error */

    if (status == MHP_OK) {
        params.kind = (mhp_device_kind)session->config.parallel.device;
        params.threads = (int)session->config.parallel.threads;
        params.seed = (uint64_t)session->config.train.seed;
    }
    return mhp_device_open(&params, &session->device);
}

mhp_status mhp_session_open(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    mhp_status config_status =
        mhp_config_load(&session->config, path, overrides->items, overrides->count);
    char config_error[MHP_ERROR_TEXT_MAX];

    snprintf(config_error, sizeof config_error, "%s", mhp_error_text());
    MHP_RETURN_IF_ERROR(open_device(session, config_status));
    MHP_RETURN_IF_ERROR(mhp_comm_open(session->device, &session->comm));
    session->root = mhp_comm_rank(session->comm) == 0;
    if (config_status != MHP_OK) {
        mhp_error_set(config_status, "%s", config_error);
    }
    return mhp_comm_agree(session->comm, config_status, NULL);
}

static void end_on_error(mhp_session *session, mhp_status status)
{
    mhp_comm *comm = session->comm;
    bool agreed = comm && mhp_comm_agreed_failure(comm);

    if (!comm || mhp_comm_fail(comm, status)) {
        if (comm && !agreed && mhp_comm_size(comm) > 1) {
            mhp_error_prefix(status, "rank %d: ", mhp_comm_rank(comm));
        }
        mhp_print_error();
    }
    if (comm && !agreed) {
        mhp_comm_abort(comm);
    }
}

int mhp_session_close(mhp_session *session, mhp_status status)
{
    if (status < 0) {
        end_on_error(session, status);
    }
    mhp_comm_close(session->comm);
    mhp_device_close(session->device);
    mhp_config_release(&session->config);
    return status < 0 ? MHP_EXIT_ERROR : 0;
}
