#!/usr/bin/env bash
# Builds the lab's kernel (Linux as a program, with netdevsim) from Debian's source package, unless
# it is there already; prints its path. Needs neither root nor anything installed but gcc, make,
# perl, bc and xz; flex, bison and m4 are unpacked beside it where they are missing.
#
#   NFT_OFFLOAD_LAB=DIR   where it is kept and made (default ~/.cache/nft-offload/lab);
#                         1.6 GB while it is made (two cores: 3 minutes), 6 MB afterwards
set -euo pipefail
lab_here="$(cd "$(dirname "$0")" && pwd)"
. "$lab_here/paths.sh"

is_there() {
  [[ -x "$lab_kernel" ]] || return 1
  echo "$lab_kernel"
}
is_there && exit
mkdir -p "$lab_cache"
# One build at a time; run.sh waits for it, too.
exec 9>"$lab_lock"
flock 9
is_there && exit
missing() {
  echo "lab: no kernel: $1" >&2
  exit 3
}
for tool in gcc make perl bc xz apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || missing "it takes $tool to build one"
done
version="$(apt-cache policy "$lab_package" 2>/dev/null | sed -n 's/^ *Candidate: //p')"
if [[ -z "$version" || "$version" == '(none)' ]]; then
  missing "apt knows no package $lab_package (Debian 12 has it; try apt-get update)"
fi

work="$lab_cache/work.$$"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
fetch() {
  apt-get download -qq "$1" >download.log 2>&1 || missing "cannot download $1"
}

for tool in flex bison m4; do
  command -v "$tool" >/dev/null && continue
  fetch "$tool"
  dpkg-deb -x "$tool"_*.deb tools
done
export PATH="$work/tools/usr/bin:$PATH"
[[ -x tools/usr/bin/m4 ]] && export M4="$work/tools/usr/bin/m4"
[[ -d tools/usr/share/bison ]] && export BISON_PKGDATADIR="$work/tools/usr/share/bison"

fetch "$lab_package"
echo "lab: building $lab_package $version, which takes some minutes" >&2
# Drivers of real hardware are most of the source, and none is built.
dpkg-deb --fsys-tarfile "$lab_package"_*.deb |
  tar -xO -f - "./usr/src/$lab_package.tar.xz" |
  tar -xJ --exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]' \
    --exclude='*/drivers/staging/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' \
    --exclude='*/drivers/infiniband/*.[ch]' --exclude='*/drivers/scsi/*.[ch]' \
    --exclude='*/sound/*.[ch]' --exclude='*/tools/testing/*' --exclude='*/tools/perf/*' \
    --exclude='*.dts' --exclude='*.dtsi' --exclude='*/Documentation/*.rst'
source="$work/$lab_package"
# As on every x86: without it the verifier refuses loads that are not aligned. ARCH=um forgets to say.
kconfig="$source/arch/x86/um/Kconfig"
sed -i '/^config UML_X86/,/def_bool y/s/def_bool y/&\n\tselect HAVE_EFFICIENT_UNALIGNED_ACCESS/' "$kconfig"
grep -q HAVE_EFFICIENT_UNALIGNED_ACCESS "$kconfig"

export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab KBUILD_BUILD_TIMESTAMP=1970-01-01
kernel_make() {
  make -s -C "$source" ARCH=um O="$work/build" "$@" >>make.log 2>&1 && return
  grep -m 10 -iE 'error' make.log >&2 || tail -n 20 make.log >&2
  missing 'it does not build'
}
mkdir build
kernel_make tinyconfig
"$source/scripts/kconfig/merge_config.sh" -m -O build build/.config "$lab_here/kernel.config" >>make.log 2>&1
kernel_make olddefconfig
while read -r line; do
  [[ "$line" == CONFIG_*=y ]] || continue
  grep -qx "$line" build/.config || missing "the option $line did not take"
done <"$lab_here/kernel.config"
kernel_make -j"$(nproc)" linux
strip -o "$lab_kernel.new" build/linux
mv "$lab_kernel.new" "$lab_kernel"
echo "$lab_kernel"
