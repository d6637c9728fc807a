#!/bin/sh
# The lab's stand-in for containerd.service: start, stop or restart it, as systemctl does with Type=notify and
# KillMode=process: returns when the daemon serves, exits with 1 when it does not come up, leaves the shims
# alone.
#
# Faults to inject, each until its file is removed, or as often as the number in FILE.times says:
#   /run/lab/refuse-start        the daemon does not come back
#   /run/lab/start-with-config   it starts with the configuration that this file names
#   /run/lab/delay-start         it starts as many seconds later as this file says
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
lab=/run/lab
pidfile=$lab/containerd.pid
log=/var/log/containerd.log

running() {
  pid=$(cat "$pidfile" 2>/dev/null) && [ -n "$pid" ] || return 1
  # A dead child of this very script is a zombie, and kill -0 would find it.
  case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in
    '' | Z*) return 1 ;;
  esac
}

strikes() {
  [ -e "$lab/$1" ] || return 1
  [ -e "$lab/$1.times" ] || return 0
  times=$(cat "$lab/$1.times")
  [ "$times" -gt 0 ] || return 1
  echo $((times - 1)) >"$lab/$1.times"
}

start() {
  running && return 0
  if strikes refuse-start; then
    echo "containerd: start refused by $lab/refuse-start" | tee -a "$log" >&2
    return 1
  fi
  if strikes delay-start; then
    sleep "$(cat "$lab/delay-start")"
  fi
  if strikes start-with-config; then
    setsid containerd --config "$(cat "$lab/start-with-config")" >>"$log" 2>&1 </dev/null &
  else
    setsid containerd >>"$log" 2>&1 </dev/null &
  fi
  echo $! >"$pidfile"
  tries=0
  while running && [ "$tries" -lt 150 ]; do
    ctr --connect-timeout 1s --timeout 5s version >/dev/null 2>&1 && return 0
    tries=$((tries + 1))
    sleep 0.03
  done
  echo "containerd: did not start" >&2
  tail -n 5 "$log" >&2
  return 1
}

stop() {
  running || return 0
  kill -TERM "$pid" 2>/dev/null
  tries=0
  while running; do
    tries=$((tries + 1))
    # As TimeoutStopSec.
    [ "$tries" -eq 500 ] && kill -KILL "$pid" 2>/dev/null
    sleep 0.02
  done
  rm -f "$pidfile"
}

case ${1-restart} in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  *) echo "usage: $0 [start|stop|restart]" >&2; exit 2 ;;
esac
