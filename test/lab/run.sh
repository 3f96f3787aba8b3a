#!/usr/bin/env bash
# Boots the lab's kernel and runs one shell command in it: run.sh 'COMMAND'. The command sees this
# machine's files read-only, the current directory can be written to, /run and TMPDIR are its own.
# Its output and exit status become ours; 124: out of time (NFT_OFFLOAD_LAB_SECONDS, 120), 125: the
# kernel died.
set -uo pipefail
lab_here="$(cd "$(dirname "$0")" && pwd)"
. "$lab_here/paths.sh"
if (($# != 1)); then
  echo "usage: run.sh 'COMMAND'" >&2
  exit 2
fi
# One may be being built at this moment.
[[ ! -x "$lab_kernel" && -e "$lab_lock" ]] && flock "$lab_lock" true
if [[ ! -x "$lab_kernel" ]]; then
  echo "lab: no kernel yet: test/lab/build.sh makes one" >&2
  exit 3
fi
job="$(mktemp -d)"
trap 'rm -rf "$job"' EXIT
printf '%s\n' "$1" >"$job/command"
: >"$job/stdout"
: >"$job/stderr"
# The kernel's memory is a file in TMPDIR; in /dev/shm it stays off the disk.
[[ -d /dev/shm ]] && export TMPDIR=/dev/shm
timeout -k 5 "${NFT_OFFLOAD_LAB_SECONDS:-120}" "$lab_kernel" mem=1024M \
  umid="nfo-$$" uml_dir="$job/" root=none rootfstype=hostfs rootflags=/ ro quiet panic=-1 \
  con=null con0=null,fd:1 init="$lab_here/init.sh" "lab_job=$job" "lab_directory=$PWD" \
  </dev/null >"$job/console" 2>&1
status=$?
cat "$job/stdout"
cat "$job/stderr" >&2
[[ -s "$job/status" ]] && exit "$(<"$job/status")"
tail -n 20 "$job/console" >&2
echo "lab: the kernel ended before the command did" >&2
((status == 124)) && exit 124
exit 125
