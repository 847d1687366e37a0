#!/bin/sh
# A Debian 12 to build the images on, where no image registry can be reached: base.sh IMAGE
# Made by debootstrap from Debian's packages, so it has to run as root. ENGINE is podman unless it is docker.
set -eu
image=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

debootstrap --variant=minbase bookworm "$folder" "${MIRROR:-http://deb.debian.org/debian}" >"$folder.log" ||
    { cat "$folder.log" >&2; exit 1; }
rm -f "$folder.log"
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
# An import says nothing of the environment, and a build without PATH finds no program.
tar -C "$folder" --one-file-system -c . | "${ENGINE:-podman}" import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null 2>&1
