# Begins a script that lives as long as its standard input, the life line: whoever holds that and
# dies, also by SIGKILL, ends the script. It then runs `finish`, which the script defines, and with
# `$input` ends the line itself.
set -u
umask 077
input=
hold() {
  trap finish EXIT
  # The last is what a word gets that nobody reads any more.
  trap 'exit 1' TERM INT HUP PIPE
  exec 3<&0
  cat <&3 >/dev/null &
  input=$!
  exec 3<&- </dev/null
}

