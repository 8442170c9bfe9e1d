#!/bin/sh
# Uploads a file, waits until it is stored, downloads it and compares: examples/curl.sh FILE
#
#   LANDFALL_URL     the server (default: http://127.0.0.1:8080)
#   LANDFALL_TOKEN   the token, if the server requires one

set -eu

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "usage: $0 FILE" >&2
    exit 2
fi
file=$1
url=${LANDFALL_URL:-http://127.0.0.1:8080}
url=${url%/}

response=$(mktemp)
headers=$(mktemp)
copy=$(mktemp)
trap 'rm -f "$response" "$headers" "$copy"' EXIT

# call OUTPUT ARGUMENT...: runs curl, with the token if there is one, and prints the problem document
# of a failed request.
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

# The first value of a text field in the response.
field() {
    grep -o "\"$1\" *: *\"[^\"]*\"" "$response" | head -n 1 | cut -d '"' -f 4
}

# 1. Upload. The idempotency key makes it safe to retry when a response gets lost: the upload is never
#    accepted twice. Quotes and backslashes in a path are escaped as curl requires.
escaped=$(printf '%s' "$file" | sed 's/[\\"]/\\&/g')
call "$response" --retry 3 --retry-connrefused --header "Idempotency-Key: curl-$(date +%s)-$$" \
    --form "file=@\"$escaped\"" "$url/v1/files"
location=$(tr -d '\r' <"$headers" | sed -n 's/^[Ll]ocation: *//p' | tail -n 1)
case $location in
/*) location=$url$location ;;
esac
echo "accepted:  $location"

# 2. Wait. Each call returns as soon as the file is stored or has failed, or after a minute.
while :; do
    call "$response" --retry 3 "$location?wait=60"
    case $(field status) in
    stored) break ;;
    failed | deleted)
        cat "$response" >&2
        echo >&2
        exit 1
        ;;
    esac
done
echo "stored:    sha256 $(field sha256)"

# 3. Download. With a bucket the server redirects to a signed URL, hence --location; curl does not
#    send the token there.
call "$copy" --location --retry 3 "$location/content"
cmp "$file" "$copy"
echo "read back: the same bytes"
