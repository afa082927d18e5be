#!/bin/sh
# The main job on the sandbox, as a tour: set-up, a first apply, a change, the
# snapshots, a lock that blocks, its removal, a restore. It works on a copy of
# examples/hello and can be run again and again.
set -eu

tfguard=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
cp "$here/hello/main.tf" "$work/"
cd "$work"
unset GITHUB_ACTIONS # a tour is for people
trap '"$tfguard" sandbox down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$(echo "$*" | sed "s|$tfguard|tfguard|g")"; }
run() { show "$@"; "$@"; }
expect() { # expect CODE COMMAND...: the command must end with this code
  want=$1; shift
  show "$@"
  code=0; "$@" || code=$?
  [ "$code" = "$want" ] || { echo "ended with $code, expected $want"; exit 1; }
  printf '\033[2m(exit code %s)\033[0m\n' "$code"
}

say "1. S3 and DynamoDB on loopback: no AWS account is needed"
run "$tfguard" sandbox up
say "2. Bucket and lock table: versioned, encrypted, private"
run "$tfguard" backend setup --sandbox
say "3. From a clean checkout to an applied change, in one step"
run "$tfguard" apply --sandbox --auto-approve
say "4. A change: this time there is a state, so a copy of it is kept first"
run "$tfguard" apply --sandbox --auto-approve --var greeting=goodbye
say "5. The copies of the state"
run "$tfguard" snapshot list --sandbox
say "6. A job is killed while terraform holds the lock"
eval "$("$tfguard" sandbox env)"
mkfifo answer
terraform apply -no-color <answer >apply.log 2>&1 &
pid=$!
exec 3>answer # terraform asks, and holds the lock while nobody answers
i=0
until grep -q 'Enter a value' apply.log; do
  i=$((i + 1)); [ $i -lt 300 ] || { cat apply.log; exit 1; }
  sleep 0.1
done
kill -9 $pid
wait $pid 2>/dev/null || true
exec 3>&-
expect 10 "$tfguard" apply --sandbox --auto-approve --var greeting=again
say "7. Half an hour later (here: 1 s) it is presumed stale, and waits for a person"
echo 'locks { stale_after = "1s" }' >.tfguard.hcl
sleep 2
expect 11 "$tfguard" apply --sandbox --auto-approve --var greeting=again
say "8. Somebody approves this lock by its ID: it is removed, if it is still that one"
id=$("$tfguard" locks --sandbox --json | sed 's/.*"id":"\([^"]*\)".*/\1/')
run "$tfguard" unlock --sandbox --id "$id"
say "9. And a way back: the state as it was before the change"
first=$("$tfguard" snapshot list --sandbox --json | sed 's/.*"id":"\([^"]*\)".*/\1/')
run "$tfguard" snapshot restore --sandbox --auto-approve "$first"
say "That was tfguard. README.md says how to point it at your own bucket."
