#!/bin/sh
# The command that jobs of the chaos tests run. It tells what it does to a journal outside of every
# process that a test may kill: one write to a file opened with O_APPEND, so that lines stay whole.
#
#   probe.sh FOLDER            note the start, print "JOB FENCE ATTEMPT", note the end
#   probe.sh FOLDER sleep S    the same, S seconds in between
#   probe.sh FOLDER hold NAME  the same, until FOLDER/NAME-FENCE (a fifo) gives a line
#   probe.sh FOLDER fail CODE  the same, and end with exit code CODE
#   probe.sh FOLDER bytes N    the same, with N more bytes of output
#   probe.sh FOLDER lines N    the same, with N numbered lines, one after the other
#
# A lock held from start to end shows whether two attempts of a job ran at once.

note() {
    read -r up _ < /proc/uptime
    printf '%s %s %s %s %s %s%s\n' "$1" "$ORQESTRA_JOB_ID" "$ORQESTRA_FENCE" "$ORQESTRA_ATTEMPT" $$ "$up" "${2:+ $2}" \
        >> "$folder/journal"
}

folder=$1
note start
exec 9> "$folder/locks/$ORQESTRA_JOB_ID"
flock --nonblock 9 || note overlap
printf '%s %s %s\n' "$ORQESTRA_JOB_ID" "$ORQESTRA_FENCE" "$ORQESTRA_ATTEMPT"
case $2 in
    sleep) sleep "$3" 9>&- ;;
    hold) read -r _ < "$folder/$3-$ORQESTRA_FENCE" ;;
    lines)
        n=0
        while [ "$n" -lt "$3" ]; do
            n=$((n + 1))
            echo "line $n"
            sleep 0.02 9>&-
        done
        # So the check of what is stored knows it.
        digest=$({
            printf '%s %s %s\n' "$ORQESTRA_JOB_ID" "$ORQESTRA_FENCE" "$ORQESTRA_ATTEMPT"
            seq -f 'line %.0f' "$3"
        } 9>&- | sha256sum)
        ;;
    bytes) head -c "$3" /dev/zero | tr '\0' x ;;
esac
note end "${digest%% *}"
[ "$2" = fail ] && exit "$3"
exit 0
