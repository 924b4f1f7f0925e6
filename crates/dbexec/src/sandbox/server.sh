# A throw-away server: made, started, and removed when standard input ends.
#
# Arguments: major, superuser, KiB that must be free, KiB below which the server is stopped,
# seconds that a start may take, directory to work in ('' for any), directory of the programs
# ('' for the usual ones); then what the server gets. Standard output says, one a line and with
# tabs, how things are; standard error is the server's log.
major=$1 superuser=$2 need=$3 floor=$4 patience=$5 place=$6 bin_dir=$7
shift 7
unset PGDATA PGHOST PGPORT PGUSER PGDATABASE PGOPTIONS PGPASSWORD PGPASSFILE PGSERVICE

dir= socket= server=
say() {
  line=pgstow-sandbox
  for word do line="$line	$word"; done
  printf '%s\n' "$line"
}
nap() { sleep 0.1 2>/dev/null || sleep 1; }
finish() {
  trap '' TERM INT HUP PIPE
  if [ -n "$input" ]; then kill "$input" 2>/dev/null; fi
  if [ -n "$server" ]; then
    # At once: nothing of it is kept. More than once, because a program that a shell starts beside
    # itself begins with this signal ignored, until the server has set up its own handling.
    tries=0
    while kill -QUIT "$server" 2>/dev/null; do
      nap
      tries=$((tries + 1))
      if [ "$tries" -gt 80 ]; then kill -KILL "$server" 2>/dev/null; fi
    done
    wait "$server" 2>/dev/null
  fi
  cd /
  if [ -n "$socket" ]; then rm -rf -- "$socket"; fi
  if [ -n "$dir" ]; then rm -rf -- "$dir"; fi
}
hold
held() { kill -0 "$input" 2>/dev/null; }

found=
look() {
  if [ -n "$found" ] || [ ! -x "$1/postgres" ] || [ ! -x "$1/initdb" ]; then return; fi
  case "$("$1/postgres" --version 2>/dev/null)" in
    *"(PostgreSQL) $major."* | *"(PostgreSQL) ${major}beta"* | *"(PostgreSQL) ${major}rc"* | *"(PostgreSQL) ${major}devel"*) found=$1 ;;
  esac
}
if [ -n "$bin_dir" ]; then
  look "$bin_dir"
else
  for candidate in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" /opt/bitnami/postgresql/bin \
    /usr/local/bin /usr/local/pgsql/bin "/usr/libexec/postgresql$major" "/usr/lib/postgresql$major/bin"; do
    look "$candidate"
  done
  old=$IFS; IFS=:
  for candidate in $PATH; do IFS=$old; look "$candidate"; IFS=:; done
  IFS=$old
fi
if [ -z "$found" ]; then say missing; exit 1; fi

# The first place that can be written and has room.
free_in() { (cd -- "$1" && LC_ALL=C df -Pk . | sed -n 's/^.* \(-*[0-9][0-9]*\)  *[0-9][0-9]*% .*$/\1/p'); }
best= most=-1
for candidate in "$place" /var/tmp /tmp /var/lib/postgresql /bitnami/postgresql; do
  if [ -z "$candidate" ] || [ ! -d "$candidate" ] || [ ! -w "$candidate" ]; then continue; fi
  free=$(free_in "$candidate")
  if [ "${free:-0}" -gt "$most" ]; then best=$candidate most=$free; fi
  if [ "$most" -ge "$need" ]; then break; fi
done
if [ -z "$best" ]; then say noplace; exit 1; fi
if [ "$most" -lt "$need" ]; then say space "$need" "$most" "$best"; exit 1; fi
dir=$(mktemp -d "$best/pgstow-sandbox.XXXXXXXX") || { say noplace; exit 1; }
cd -- "$dir" || exit 1
# A socket's path has a limit of about 100 bytes.
if [ "${#dir}" -gt 80 ]; then
  socket=$(mktemp -d /tmp/pgstow-sandbox.XXXXXXXX) || { say noplace; exit 1; }
else
  mkdir "$dir/socket"
fi
at=${socket:-$dir/socket}

# initdb wants a name for its user; images that run under a bare number bring this library for it.
wrapper=/opt/bitnami/common/lib/libnss_wrapper.so
if ! id -un >/dev/null 2>&1 && [ -e "$wrapper" ]; then
  printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$dir" >"$dir/passwd"
  printf 'postgres:x:%s:\n' "$(id -g)" >"$dir/group"
  export NSS_WRAPPER_PASSWD="$dir/passwd" NSS_WRAPPER_GROUP="$dir/group" LD_PRELOAD="$wrapper"
fi

if ! TZ=UTC "$found/initdb" -D "$dir/data" --username="$superuser" --auth=trust --encoding=UTF8 \
  --locale=C --no-sync >"$dir/initdb.log" 2>&1; then
  tail -n 20 "$dir/initdb.log" >&2
  say failed initdb
  exit 1
fi
held || exit 1
"$found/postgres" -D "$dir/data" "$@" -c "unix_socket_directories=\"$at\"" >&2 &
server=$!
tries=0
until case "$(sed -n 8p "$dir/data/postmaster.pid" 2>/dev/null)" in ready*) true ;; *) false ;; esac do
  held || exit 1
  nap
  tries=$((tries + 1))
  if ! kill -0 "$server" 2>/dev/null; then say failed server; exit 1; fi
  if [ "$tries" -gt $((patience * 10)) ]; then say failed timeout; exit 1; fi
done
say ready "$at" "$found" "$dir"

rounds=0
while held; do
  if ! kill -0 "$server" 2>/dev/null; then say ended; exit 1; fi
  rounds=$((rounds + 1))
  # What else lives on this disk must not suffer.
  if [ $((rounds % 20)) -eq 0 ]; then
    free=$(free_in "$dir")
    if [ "${free:-$floor}" -lt "$floor" ]; then say full "$free" "$best"; exit 1; fi
  fi
  nap
done
exit 0
