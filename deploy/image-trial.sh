#!/usr/bin/env bash
# A container of localhost/bellwether beside a ZooKeeper: run by deploy/image.sh, in name spaces of its own.
#
#   deploy/image-trial.sh FOLDER [BUILDAH'S FLAGS…]
set -euo pipefail
folder="$1"
shift
flags=("$@")
buildah() { command buildah "${flags[@]}" "$@"; }

step() { echo "==> $*"; }
fail() {
    echo "FAILED: $*"
    tail -n 40 "$folder"/*.log
    exit 1
}
is() { # what, expected, found
    [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""
}
until_so() {
    local what="$1" left=600
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "${running:-$$}" 2>/dev/null || fail "$what: it has ended"
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$what: not within a minute"
        sleep 0.1
    done
}
said() { buildah inspect --type image --format "{{$1}}" localhost/bellwether; }

ip link set lo up
mkdir "$folder/zookeeper" "$folder/volume"
printf 'tickTime=500\ndataDir=%s/zookeeper\nclientPort=2181\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n' "$folder" >"$folder/zoo.cfg"
java -Xmx192m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$folder/zoo.cfg" >"$folder/zookeeper.log" 2>&1 &

step "What the image says of itself"
is "its user" 10001:10001 "$(said .Docker.Config.User)"
is "its program" "[/usr/bin/bellwether] [serve]" "$(said .Docker.Config.Entrypoint) $(said .Docker.Config.Cmd)"
is "its volume" "map[/var/lib/bellwether:{}]" "$(said .Docker.Config.Volumes)"
is "its signal" SIGTERM "$(said .Docker.Config.StopSignal)"
health="$(said .Docker.Config.Healthcheck.Test)"
is "its health check" "[CMD curl --fail --silent http://127.0.0.1:7420/readyz]" "$health"

container="$(buildah from --pull-never localhost/bellwether)"
inside() { buildah run --isolation chroot --volume "$folder/volume:/var/lib/bellwether" "$container" -- "$@"; }
# An engine makes a new volume as the folder is in the image.
is "the folder of the volume" "10001:10001" "$(buildah run --isolation chroot "$container" -- stat --format=%u:%g /var/lib/bellwether)"
chown 10001:10001 "$folder/volume"
is "who it runs as" 10001 "$(inside id -u)"
inside bellwether --version

# Its process is the child of buildah's that runs the program.
broker() { pgrep -f '^/usr/bin/bellwether serve' | tail -n 1; }
start() {
    inside /usr/bin/bellwether serve --id 1 --zookeeper 127.0.0.1:2181/bellwether --insecure --advertise 127.0.0.1 --peer-advertise 127.0.0.1 >>"$folder/broker.log" 2>&1 &
    running=$!
    # shellcheck disable=SC2086
    until_so "healthy, as the image's own check says" inside $(sed 's/^\[CMD \(.*\)\]$/\1/' <<<"$health")
}
stop() {
    kill -TERM "$(broker)"
    local status=0
    wait "$running" || status=$?
    is "the status of a stop" 0 "$status"
}

step "A broker: healthy when it serves, and stopped by the image's signal with a hand-over"
start
inside bellwether queue declare orders --replicas 1
seq 1 100 | inside bellwether publish --queue orders
stop
is "its data" "10001:10001 700" "$(stat --format='%u:%g %a' "$folder/volume/data")"

step "Another container on the same volume"
start
is "messages" 100 "$(inside bellwether consume orders --count 100 | wc -l)"
stop
buildah rm "$container" >/dev/null
echo "All of it is as it should be"
