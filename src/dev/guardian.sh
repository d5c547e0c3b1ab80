# Runs Postgres for as long as somebody holds the other end of the lifeline, then stops it.
#
# Arguments: log file, socket directory, lifeline, linger; then the command that is Postgres.
# lifeline: `-` is standard input, a pipe that the starting process holds; anything else is the
# path of a FIFO that any number of processes hold open for writing. Whoever opens the FIFO writes
# a name on a line; the file of that name in the socket directory is the answer that Postgres will
# now run for as long as the FIFO is held. Linger, in seconds, is how long a FIFO may go unheld.
log=$1 sockets=$2 fifo=$3 linger=$4
shift 4
unset SCRIPT
exec 3<&0 </dev/null

"$@" 3<&- >"$log" 2>&1 &
postgres=$!
trap 'kill -INT "$postgres" 2>/dev/null' HUP INT TERM

hold() {
  # The sleep holds the FIFO like everybody else, so that a pause between two users is not the end.
  exec 4<>"$fifo" 3<"$fifo" 4>&-
  joined=yes
  while [ "$joined" ]; do
    joined=
    exec 4>"$fifo"
    sleep "$linger" 3<&- &
    exec 4>&-
    while read -r name <&3; do
      joined=yes
      : >"$sockets/$name"
    done
  done
  rm -f "$fifo"
  exec 3<&-
}

(
  if [ "$fifo" = - ]; then
    while read -r _ <&3; do :; done
  else
    hold
  fi
  kill -INT "$postgres"
  sleep 15
  kill -QUIT "$postgres"
) &

code=0
# A trapped signal ends `wait` early; the process is gone only when there is nobody to signal.
while kill -0 "$postgres" 2>/dev/null; do
  wait "$postgres"
  code=$?
done
# Postgres removes its socket unless it was killed. Nothing else is removed but an empty folder: the
# next server on the same data may have moved in already.
[ "$code" -le 128 ] || rm -f "$sockets"/.s.PGSQL.*
rmdir "$sockets" 2>/dev/null
# The rest of this group is the watcher and its sleep; Postgres has ended.
trap '' TERM
kill -TERM 0
exit "$code"
