# Holds a sidecar's container until standard input ends. Argument: the spool directory.
# The engine then removes the container.
spool=$1
finish() {
  trap '' TERM INT HUP PIPE
  # The other programs first, or they go on writing. Only where all processes are the container's.
  if [ "$$" -eq 1 ]; then kill -KILL -1 2>/dev/null; fi
  # What they wrote; the directories themselves are not ours to remove.
  for dir in "$spool"/s.*; do
    if [ -d "$dir" ]; then rm -rf -- "$dir"/* "$dir"/.[!.]*; fi
  done
}
hold
printf 'pgstow-sidecar\tready\t%s\t%s\n' "$(id -u)" "$(id -g)"
wait "$input"
exit 0
