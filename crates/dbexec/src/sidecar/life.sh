# Holds a sidecar's container until standard input ends. Argument: the spool directory.
#
# Standard input is the life line: whoever holds it and dies, also by SIGKILL, ends the container,
# which the engine then removes.
set -u
umask 077
spool=$1 input=
finish() {
  trap '' TERM INT HUP PIPE
  # The other programs first, or they go on writing. Only where all processes are the container's.
  if [ "$$" -eq 1 ]; then kill -KILL -1 2>/dev/null; fi
  # What they wrote; the directories themselves are not ours to remove.
  for dir in "$spool"/s.*; do
    if [ -d "$dir" ]; then rm -rf -- "$dir"/* "$dir"/.[!.]*; fi
  done
}
trap finish EXIT
# The last is what a word gets that nobody reads any more.
trap 'exit 1' TERM INT HUP PIPE

exec 3<&0
cat <&3 >/dev/null &
input=$!
exec 3<&- </dev/null
printf 'pgstow-sidecar\tready\t%s\t%s\n' "$(id -u)" "$(id -g)"
wait "$input"
exit 0
