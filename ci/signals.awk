#!/usr/bin/awk -f
# Reads what strace wrote of kill, pidfd_send_signal, wait4 and waitid. A signal by number goes only to a process that has not
# been waited for; and where processes are known by descriptors, none goes by number. Exit status 1 otherwise.
/ (wait4|waitid)\(/ || /<\.\.\. (wait4|waitid) resumed>/ {
    # The number that wait4 returns.
    if (match($0, /= [0-9]+$/)) reaped[substr($0, RSTART + 2)] = NR
    # The one that waitid tells.
    if (match($0, /si_pid=[0-9]+/) && !/WNOWAIT/) reaped[substr($0, RSTART + 7, RLENGTH - 7)] = NR
}
/ kill\([0-9]+, SIG/ {
    match($0, /kill\([0-9]+/)
    pid = substr($0, RSTART + 5, RLENGTH - 5)
    if (pid in reaped) { print "signal to a process that is gone: " $0; bad = 1 }
    else if (transport == "shared-memory") { print "signal by number: " $0; bad = 1 }
    numbers++
}
/ pidfd_send_signal\(/ { descriptors++ }
END {
    printf "%d signals by descriptor, %d by number\n", descriptors, numbers
    if (descriptors + numbers == 0) { print "no signals at all: this test is of no use"; bad = 1 }
    exit bad
}
