# Waits until the owner of a temporary cluster is gone, then stops and deletes the cluster.
# $1: the cluster's folder. Standard input: ends with the owner.
dir=$1
trap '' HUP INT TERM
read -r _
tries=0
while [ -d "$dir" ] && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    alive=no
    for file in "$dir"/db*/data/postmaster.pid; do
        [ -r "$file" ] || continue
        read -r pid <"$file" || continue
        # The number may have gone to another process: ours names its data folder.
        line=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || ps -o args= -p "$pid")
        case $line in
        *postgres*" -D ${file%/postmaster.pid}"*) alive=yes ;;
        *) continue ;;
        esac
        # Stopped processes do not see SIGQUIT; the postmaster kills its children itself when they
        # do not follow within 5 seconds.
        if [ "$tries" -lt 80 ]; then
            kill -QUIT "$pid"
            kill -CONT "$pid"
        else
            kill -KILL "$pid"
        fi
    done
    if [ "$alive" = no ]; then
        # A postmaster killed with SIGKILL leaves a System V segment; line 7 of its file names it.
        for file in "$dir"/db*/data/postmaster.pid; do
            [ -r /proc/sysvipc/shm ] && [ -r "$file" ] || continue
            segment=$(sed -n '7{s/^ *//;s/  */ /g;p;}' "$file")
            while read -r key id _ _ _ _ attached _; do
                if [ "$key $id" = "$segment" ] && [ "$attached" = 0 ]; then
                    ipcrm -m "$id"
                fi
            done </proc/sysvipc/shm
        done
        rm -rf "$dir"
    fi
    sleep 0.1 2>/dev/null || sleep 1
done
