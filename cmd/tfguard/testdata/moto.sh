#!/bin/sh
# The end-to-end scripts against moto_server, a second opinion on the sandbox:
# what holds against both was not made true by the sandbox's own idea of S3 and
# DynamoDB. Arguments go to go test, such as -run or -v.
set -eu

command -v moto_server >/dev/null || {
  echo "moto.sh: moto_server is not in PATH; install it with: pip install 'moto[server]'" >&2
  exit 1
}
cd "$(dirname "$0")/.."
log=$(mktemp)
PYTHONUNBUFFERED=1 moto_server -H 127.0.0.1 -p 0 >"$log" 2>&1 & # any free port
moto=$!
trap 'kill $moto 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

url=
tries=0
until [ -n "$url" ]; do
  url=$(sed -n 's/.*Running on \(http:[^ ]*\).*/\1/p' "$log")
  tries=$((tries + 1))
  if [ $tries -gt 300 ] || ! kill -0 $moto 2>/dev/null; then
    echo "moto.sh: moto_server has not started:" >&2
    cat "$log" >&2
    exit 1
  fi
  sleep 0.1
done
echo "moto_server at $url"
TFGUARD_E2E_ENDPOINT=$url ${GO:-go} test -race -count=1 -run TestScripts "$@" .
