#!/usr/bin/env bash
# tensorboard.sh MHCPIPE: event files of a run that was resumed, read by TensorBoard; skipped (77) where it is not installed.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
python=${MHP_TEST_PYTHON:-python3}
"$python" -c 'import tensorboard' 2>/dev/null || {
    echo "skipped: $python cannot import tensorboard (pip install tensorboard; MHP_TEST_PYTHON names another Python)"
    exit 77
}
make_data
write_config
launch 2 train config.yaml --set log.tensorboard=true --set checkpoint.every=5 >/dev/null
"$python" "$here/ranks/tensorboard_read.py" run || fail "TensorBoard reads something else"
echo "== resumed: what came behind the checkpoint is forgotten"
rm -r run/checkpoints/step-0000001*
launch 2 train config.yaml --set log.tensorboard=true --resume run/checkpoints/step-00000005 >/dev/null
[ "$(find run/tensorboard -type f | wc -l)" -eq 2 ] || fail "not one file for each start"
"$python" "$here/ranks/tensorboard_read.py" run || fail "TensorBoard reads something else of a resumed run"
