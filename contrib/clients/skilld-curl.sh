#!/bin/sh
# Calls skilld over HTTP: skilld-curl.sh [-s SOCKET] [METHOD [PARAMS]], PARAMS being JSON. Needs curl and jq.
# Prints the result as JSON. Exit status: 0 done, 1 refused, 3 no daemon that answers.
given=${SKILLD_ENDPOINT:-}
if [ "${1-}" = -s ]; then given=${2:-$given}; shift 2; fi
none='{}'
request='{"jsonrpc":"2.0","id":1,"method":"'${1:-skills.list}'","params":'${2:-$none}'}'
set -- /var/run/skilld.sock /run/skilld.sock /var/run/skilld/skilld.sock /run/skilld/skilld.sock \
  "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/skilld/skilld.sock"
[ -z "$given" ] || set -- "$given"
for path; do
  # -q and --noproxy: neither ~/.curlrc nor a proxy has a say; 630 s: a script may take 600.
  reply=$(curl -q -sS --noproxy '*' -m 630 --unix-socket "$path" --data-raw "$request" http://skilld/rpc 2>/dev/null)
  status=$?
  [ $status = 7 ] && continue # nobody listens here
  [ $status = 0 ] || { echo "$path: no answer (curl's exit status $status)" >&2; exit 3; }
  printf '%s\n' "$reply" |
    jq -c 'if .error then "\(.error.code) \(.error.data.reason): \(.error.message)\n" | halt_error(1) else .result end'
  exit
done
echo "no daemon at $*" >&2
exit 3
