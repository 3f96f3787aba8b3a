# Sourced: where the lab's kernel is kept. Named after all that it is made from.
lab_package=linux-source-6.1
lab_cache="${NFT_OFFLOAD_LAB:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nft-offload/lab}"
lab_key="$(cat "$lab_here/build.sh" "$lab_here/kernel.config" | sha256sum | cut -c1-16)"
lab_kernel="$lab_cache/linux-$lab_key"
lab_lock="$lab_cache/lock"
