#!/usr/bin/env bash
# Installs the C library that cargo built: headers, static and shared library, and what pkg-config says of them.
# `install-ffi.sh FOLDER PREFIX`, with FOLDER being cargo's, such as target/release
#
# DESTDIR goes before every path; LIBDIR and INCLUDEDIR replace PREFIX/lib and PREFIX/include. What is relative is so to the
# folder that this is run in. The shared library is linked
# here and not by cargo, which exports what other crates have for C as well.
set -euo pipefail
built=$(realpath "$1")
absolute() { realpath --canonicalize-missing --no-symlinks "$1"; }
prefix=$(absolute "$2")
libdir=$(absolute "${LIBDIR:-$prefix/lib}")
includedir=$(absolute "${INCLUDEDIR:-$prefix/include}")
destdir=${DESTDIR:+$(realpath --canonicalize-missing "$DESTDIR")}
script=$(realpath "$0")
cd "$(dirname "$script")/../ffi"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -n 1)
static=$built/libmodelseal_ffi.a
shared=$built/libmodelseal.so.$version
# What rustc says that a static library needs on Linux (--print native-static-libs).
needed=(-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc)

# Before 1.0 a minor version may break the ABI, afterwards only a major one.
abi=${version%%.*}
[[ $abi != 0 ]] || abi=$(cut -d. -f1,2 <<<"$version")
soname=libmodelseal.so.$abi

# Exactly what exports.txt lists, under one version. Worker threads outlive any dlclose, so the library stays.
link() {
    local exports=$built/modelseal.map names
    mapfile -t names <exports.txt
    printf 'MODELSEAL_%s { global: %slocal: *; };\n' "$abi" "$(printf '%s; ' "${names[@]}")" >"$exports"
    ${CC:-cc} -shared -o "$shared" "${names[@]/#/-Wl,-u,}" "$static" "-Wl,--version-script=$exports" \
        "-Wl,-soname,$soname" -Wl,--gc-sections -Wl,-z,defs -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now "${needed[@]}"
}
[[ $shared -nt $static && $shared -nt exports.txt && $shared -nt $script ]] || link

put() { install -D -m "$1" "$2" "$destdir$3"; }
put 644 include/modelseal.h "$includedir/modelseal.h"
put 644 include/modelseal.hpp "$includedir/modelseal.hpp"
put 644 "$static" "$libdir/libmodelseal.a"
put 755 "$shared" "$libdir/libmodelseal.so.$version"
ln -sf "libmodelseal.so.$version" "$destdir$libdir/$soname"
ln -sf "$soname" "$destdir$libdir/libmodelseal.so"
install -d "$destdir$libdir/pkgconfig"
sed -e "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@INCLUDEDIR@|$includedir|" \
    -e "s|@VERSION@|$version|; s|@STATIC_LIBS@|${needed[*]}|" modelseal.pc.in >"$destdir$libdir/pkgconfig/modelseal.pc"
