#!/bin/sh
# Sends a file, waits until it is stored, reads it back and compares: examples/curl.sh FILE
#
#   LANDFALL_URL     the server (default: http://127.0.0.1:8080)
#   LANDFALL_TOKEN   the token, where the server asks for one

set -eu

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "usage: $0 FILE" >&2
    exit 2
fi
file=$1
url=${LANDFALL_URL:-http://127.0.0.1:8080}
url=${url%/}

answer=$(mktemp)
headers=$(mktemp)
copy=$(mktemp)
trap 'rm -f "$answer" "$headers" "$copy"' EXIT

# call OUTPUT ARGUMENT...: curl, with the token if there is one; a problem is printed as the server
# worded it.
call() {
    output=$1
    shift
    if ! curl --silent --show-error --fail-with-body --output "$output" --dump-header "$headers" \
        ${LANDFALL_TOKEN:+--header "Authorization: Bearer $LANDFALL_TOKEN"} "$@"; then
        cat "$output" >&2
        echo >&2
        return 1
    fi
}

# The first value of a text field in the answer.
field() {
    grep -o "\"$1\" *: *\"[^\"]*\"" "$answer" | head -n 1 | cut -d '"' -f 4
}

# 1. Send. The key makes it safe to try again when an answer gets lost: the same upload is never
#    taken in twice. Quotes and backslashes in a path are escaped as curl wants them.
escaped=$(printf '%s' "$file" | sed 's/[\\"]/\\&/g')
call "$answer" --retry 3 --retry-connrefused --header "Idempotency-Key: curl-$(date +%s)-$$" \
    --form "file=@\"$escaped\"" "$url/v1/files"
location=$(tr -d '\r' <"$headers" | sed -n 's/^[Ll]ocation: *//p' | tail -n 1)
case $location in
/*) location=$url$location ;;
esac
echo "taken in:  $location"

# 2. Wait. Each call comes back as soon as the file is stored or has failed, or after a minute.
while :; do
    call "$answer" --retry 3 "$location?wait=60"
    case $(field status) in
    stored) break ;;
    failed | deleted)
        cat "$answer" >&2
        echo >&2
        exit 1
        ;;
    esac
done
echo "stored:    sha256 $(field sha256)"

# 3. Read. With a bucket behind it the server sends on to a signed URL, hence --location; curl does
#    not send the token there.
call "$copy" --location --retry 3 "$location/content"
cmp "$file" "$copy"
echo "read back: the same bytes"
