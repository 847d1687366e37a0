#!/bin/sh
# The root file system of an image: stage.sh FOLDER PROGRAM...
# Holds the programs without their symbols, what the dynamic linker loads for them and that linker itself, each where it
# is here, and the parents of the folders that are the user's.
set -eu
root=$1
shift

mkdir -p "$root/usr/bin" "$root/run" "$root/var/lib"
for program; do
    strip -o "$root/usr/bin/${program##*/}" "$program"
    # Lines are "name => path (address)" or, for the linker, "path (address)".
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root${library%/*}"
        strip --strip-unneeded -o "$root$library" "$(readlink -f "$library")"
        chmod --reference "$(readlink -f "$library")" "$root$library"
    done
done
