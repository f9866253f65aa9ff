# Ends a service and removes its folder once the program that started it is gone, however it ended: the kernel closes
# the program's end of the pipe on our standard input. Arguments: the folder (may be empty), the signal that ends the
# service at once.
trap '' INT TERM HUP QUIT
folder=$1
signal=$2
pid=
container=
# A process that has ended but that nobody has reaped yet still takes signals; only Linux says which those are.
alive() {
    kill -s 0 "$1" && ! grep -q '^State:.Z' "/proc/$1/status"
}
while read -r verb argument; do
    case $verb in
    watch) pid=$argument ;;
    forget) pid= ;;
    container) container=$argument ;;
    esac
done
if [ -n "$pid" ]; then
    kill -s "$signal" "$pid"
    tries=0
    while alive "$pid" && [ "$tries" -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -s KILL "$pid"
fi
socket=${DOCKER_HOST:-/var/run/docker.sock}
if [ -n "$container" ] && ! docker rm --force --volumes "$container"; then
    curl --silent --request DELETE --unix-socket "${socket#unix://}" \
        "http://docker/containers/$container?force=true&v=true"
fi
[ -n "$folder" ] && rm -rf -- "$folder"
