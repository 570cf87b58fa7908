#!/bin/sh
# Print the digest of one skill directory, as skilld attests it: "sha256:<hex>".
#
#   skill_digest.sh DIR       the digest
#   skill_digest.sh -l DIR    the listing whose sha256 is the digest
#
# The listing has one line for every file below DIR, sorted by the bytes of its path:
#   <sha256 of the content> <mark><path>        mark: "*" if any execute bit is set, else a space
#   <sha256 of the target text> @<path>         a symbolic link, which is never followed
#
# Exit codes: 0 printed, 1 the directory cannot be attested (a newline in a path), 2 wrong call or unreadable file.
# Needs find, sort, tr, readlink and sha256sum.
set -eu
LC_ALL=C
export LC_ALL

die() {
    printf 'skill_digest.sh: %s\n' "$2" >&2
    exit "$1"
}

listing=no
if [ "${1-}" = "-l" ]; then
    listing=yes
    shift
fi
[ $# -eq 1 ] || die 2 "usage: skill_digest.sh [-l] DIR"
[ -f "$1/SKILL.md" ] || [ -f "$1/skill.md" ] || die 2 "$1: no SKILL.md in it"
cd -- "$1" || exit 2

newline='
'
if [ -n "$(find . -name "*${newline}*" -print | tr '\n' '?')" ]; then
    die 1 "a path holds a newline: this skill cannot be attested"
fi

hash_of_stdin() {
    sum=$(sha256sum) || exit 2
    printf '%s' "${sum%% *}"
}

list() {
    # "./" comes off before sorting: it is no part of the path.
    find . \( -type f -o -type l \) -print | while IFS= read -r path; do printf '%s\n' "${path#./}"; done |
        sort | while IFS= read -r path; do
        if [ -L "$path" ]; then
            # -n: the target's own text, without a newline of readlink's.
            hash=$(readlink -n -- "$path" | hash_of_stdin)
            mark=@
        else
            hash=$(hash_of_stdin <"$path") || die 2 "$path: cannot be read"
            mark=' '
            if [ -n "$(find "./$path" -prune \( -perm -100 -o -perm -010 -o -perm -001 \) -print)" ]; then
                mark='*'
            fi
        fi
        printf '%s %s%s\n' "$hash" "$mark" "$path"
    done
}

# The listing is kept whole so that a file that cannot be read stops the script instead of shortening the digest.
lines=$(list)
[ -n "$lines" ] || die 2 "$1: nothing in it"
if [ "$listing" = yes ]; then
    printf '%s\n' "$lines"
else
    printf 'sha256:%s\n' "$(printf '%s\n' "$lines" | hash_of_stdin)"
fi
