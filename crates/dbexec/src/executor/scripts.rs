//! The scripts that run inside containers: constants; values arrive as positional arguments.

/// Runs a program with its process id told on standard error first, and without the variables
/// that `$1` lists. Client programs of distributions that are not on PATH are found too. Standard
/// output goes into the FIFO `$2`, which is there and which nobody but its reader opened; where that
/// is empty, to the engine.
pub(crate) const LAUNCH: &str = r#"
for name in $1; do unset "$name"; done
into=$2
shift 2
for dir in /usr/local/pgsql/bin /opt/bitnami/postgresql/bin /usr/pgsql-*/bin /usr/lib/postgresql/*/bin; do
  if [ -d "$dir" ]; then PATH="$dir:$PATH"; fi
done
printf 'pgstow-pid %s\n' "$$" >&2
if [ -n "$into" ]; then exec "$@" >"$into"; fi
exec "$@"
"#;

/// Two functions. `search` looks for programs in the directories that its first arguments, patterns,
/// name (so many as `$1` says), and in those of PATH. It prints a line for each that holds pg_dump or
/// psql, with `$mark` in front: directory, version, programs, whether pg_dump can write zstd. That is
/// learnt from how it fails to connect to a directory that does not exist: an unknown compression is
/// refused before.
macro_rules! search {
    () => {
        r#"
seen=:
look() {
  case "$seen" in *":$1:"*) return;; esac
  seen="$seen$1:"
  # Debian's wrapper only chooses among the versioned directories, and takes a perl to do so.
  case "$(readlink "$1/pg_dump" 2>/dev/null || readlink "$1/psql" 2>/dev/null)" in *pg_wrapper) return;; esac
  names=; version=
  for program in pg_dump pg_dumpall pg_restore psql; do
    if [ -x "$1/$program" ]; then
      names="$names$program "
      if [ -z "$version" ]; then version=$("$1/$program" --version 2>/dev/null); fi
    fi
  done
  if [ -z "$names" ]; then return; fi
  zstd=-
  if [ -x "$1/pg_dump" ]; then
    words=$(PGHOST=/nonexistent/pgstow PGCONNECT_TIMEOUT=2 LC_ALL=C "$1/pg_dump" -w -Fc --compress=zstd:1 2>&1 </dev/null)
    case "$words" in *"/nonexistent/pgstow"*) zstd=zstd;; esac
  fi
  printf '%s%s\t%s\t%s\t%s\n' "$mark" "$1" "$version" "${names% }" "$zstd"
}
search() {
  count=$1
  while [ "$count" -gt 0 ]; do
    shift; count=$((count-1))
    for dir in $1; do look "$dir"; done
  done
  old=$IFS; IFS=:
  for dir in $PATH; do IFS=$old; look "$dir"; IFS=:; done
  IFS=$old
}
"#
    };
}
pub(crate) use search;

/// Searches for programs; arguments: patterns of directories.
pub(crate) const FIND_PROGRAMS: &str = concat!(search!(), "mark=\nsearch $# \"$@\"\nexit 0\n");

/// Ends the process `$1`: TERM, then KILL when it is still there after 2 s.
pub(crate) const END_PROCESS: &str = r#"
kill -TERM "$1" 2>/dev/null || exit 0
i=0
while [ "$i" -lt 20 ] && kill -0 "$1" 2>/dev/null; do sleep 0.1 2>/dev/null || sleep 1; i=$((i+1)); done
kill -KILL "$1" 2>/dev/null
exit 0
"#;

/// Ends every process whose environment says `PGAPPNAME=$1`, or that and `-` and more, and prints
/// how many there were. Names hold letters, digits and `-` alone.
pub(crate) const REAP: &str = r#"
count=0
case "$1" in *[!A-Za-z0-9-]*) echo 0; exit 0;; esac
for dir in /proc/[0-9]*; do
  if { tr '\000' '\n' < "$dir/environ"; } 2>/dev/null | grep -qxE "PGAPPNAME=$1(-.*)?" 2>/dev/null; then
    pid=${dir#/proc/}
    if kill -KILL "$pid" 2>/dev/null; then count=$((count+1)); fi
  fi
done
printf '%s\n' "$count"
"#;

/// Prints the free space of the file system that holds `$1`, in the form of POSIX: KiB.
pub(crate) const FREE_SPACE: &str = r#"
cd -- "$1" && LC_ALL=C df -Pk .
"#;

/// Makes a private directory in the first writable place and prints its path.
pub(crate) const MAKE_SCRATCH: &str = r#"
umask 077
for place in /var/tmp /tmp "${PGDATA:+$PGDATA/..}" /dev/shm; do
  if [ -n "$place" ] && [ -d "$place" ] && [ -w "$place" ]; then
    dir=$(mktemp -d "$place/pgstow-scratch.XXXXXXXX" 2>/dev/null) && { cd "$dir" && pwd -P; exit 0; }
  fi
done
echo 'no writable directory: tried /var/tmp, /tmp, beside PGDATA, /dev/shm' >&2
exit 1
"#;

/// Removes a directory that [`MAKE_SCRATCH`] made.
pub(crate) const REMOVE_SCRATCH: &str = r#"
case "$1" in */pgstow-scratch.*) ;; *) exit 1;; esac
rm -rf -- "$1" && [ ! -e "$1" ]
"#;

/// Stores standard input as the private file `$1` and prints its size.
pub(crate) const PUT_FILE: &str = r#"
umask 077
mkdir -p -- "${1%/*}" && cat > "$1" && wc -c < "$1"
"#;
