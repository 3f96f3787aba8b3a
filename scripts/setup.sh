#!/usr/bin/env bash
# Installs what the tests of the real kernel need and this machine lacks (Debian and its relatives).
set -euo pipefail

# command or file that shows a package is there : the package
needs=(
  nft:nftables
  ip:iproute2
  bpftool:bpftool
  ethtool:ethtool
  tcpdump:tcpdump
  iptables:iptables
  tc:iproute2
  gcc:gcc
  /usr/include/stdlib.h:libc6-dev
  python3:python3
  sshd:openssh-server
  ssh-agent:openssh-client
  sudo:sudo
  ovs-vswitchd:openvswitch-switch
)

PATH="$PATH:/usr/sbin:/sbin"
missing=()
for need in "${needs[@]}"; do
  probe="${need%%:*}"
  if [[ "$probe" == /* ]]; then
    [[ -e "$probe" ]] || missing+=("${need##*:}")
  elif ! command -v "$probe" >/dev/null; then
    missing+=("${need##*:}")
  fi
done

if ((${#missing[@]} == 0)); then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "setup: missing ${missing[*]}; install them by your distribution's package manager." >&2
  echo "setup: tests that need them will be skipped." >&2
  exit 0
fi
if ((EUID != 0)); then
  echo "setup: missing ${missing[*]}; only root can install them: sudo scripts/setup.sh" >&2
  echo "setup: tests that need them, or root, will be skipped." >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
install_missing() {
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if ! install_missing; then
  apt-get update -qq >"$log" 2>&1 || true
  if ! install_missing; then
    cat "$log" >&2
    echo "setup: could not install ${missing[*]}." >&2
    exit 1
  fi
fi
echo "setup: installed ${missing[*]}." >&2
