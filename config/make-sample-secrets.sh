#!/bin/sh
# Writes a made-up secret for each `file:secrets/…` of accounts.yaml: good for the sandbox, for nothing else.
# A secret that is there already is left alone.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
grep -o 'file:secrets/[A-Za-z0-9_.-]*' accounts.yaml | cut -d/ -f2 | sort -u | while read -r name; do
    [ -e "secrets/$name" ] || printf 'sample-%s\n' "$name" > "secrets/$name"
done
