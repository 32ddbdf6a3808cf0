#!/bin/bash
# The life of the package on one machine, from the installation to the purge: run by systemd, as root, in the Debian that
# deploy/package-trial.sh boots. The first thing that is not as it should be ends it.
set -euo pipefail
cd /trial
export DEBIAN_FRONTEND=noninteractive HOME=/root

step() { echo "==> $*"; }
fail() {
    echo "FAILED: $*"
    journalctl --no-pager -n 40 -u bellwether
    exit 1
}
is() { # what, expected, found
    [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""
}
# Waits until this succeeds.
until_so() {
    local what="$1" left=600
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$what: not within a minute"
        sleep 0.1
    done
}
pid() { systemctl show --property=MainPID --value bellwether; }
owner() { stat --format='%U:%G %a' "$1"; }

step "A ZooKeeper"
java="$(tr '\0' '\n' </proc/1/environ | sed -n 's/^JAVA=//p')"
mkdir -p zookeeper
printf 'tickTime=500\ndataDir=/trial/zookeeper\nclientPort=2181\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n' >zoo.cfg
systemd-run --quiet --unit=zookeeper "$java" -Xmx192m -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar \
    org.apache.zookeeper.server.quorum.QuorumPeerMain /trial/zoo.cfg

step "Install: a user, a folder, a configuration, and nothing that runs"
dpkg -i bellwether.deb
is "the user's shell" /usr/sbin/nologin "$(getent passwd bellwether | cut -d: -f7)"
is "the user's home" /var/lib/bellwether "$(getent passwd bellwether | cut -d: -f6)"
is "the data folder" "bellwether:bellwether 750" "$(owner /var/lib/bellwether)"
is "the configuration" "root:bellwether 640" "$(owner /etc/bellwether/bellwether.toml)"
is "enabled" disabled "$(systemctl is-enabled bellwether || true)"
is "active" inactive "$(systemctl is-active bellwether || true)"
systemd-analyze verify bellwether.service || fail "the unit is wrong"
bellwether --version

step "Start without a number and an ensemble: refused at once, with what is missing"
! systemctl start bellwether || fail "it started without a configuration"
is "after a wrong configuration" failed "$(systemctl is-active bellwether || true)"
is "restarts after a wrong configuration" 0 "$(systemctl show --property=NRestarts --value bellwether)"
journalctl --no-pager -u bellwether | grep -i -E 'id|zookeeper' | tail -n 3

step "Start: systemctl returns when clients are served"
sed -i -e 's/^# id = .*/id = 1/' -e 's|^# zookeeper = .*|zookeeper = "127.0.0.1:2181/bellwether"|' /etc/bellwether/bellwether.toml
systemctl reset-failed bellwether
systemctl enable --now bellwether
is "readiness" 200 "$(curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:7420/readyz)"
is "who runs it" bellwether "$(stat --format=%U "/proc/$(pid)")"
is "what it may do beyond that" 0000000000000000 "$(sed -n 's/^CapBnd:\s*//p' "/proc/$(pid)/status")"
is "its data" "bellwether:bellwether 700" "$(owner /var/lib/bellwether/data)"
bellwether queue declare orders --replicas 1
seq 1 100 | bellwether publish --queue orders
systemd-analyze security --no-pager bellwether | tail -n 1

step "Reload: the configuration is read again, and nothing stops"
first="$(pid)"
echo 'replace-after = "30m"' >>/etc/bellwether/bellwether.toml
systemctl reload bellwether
until_so "the change is taken in" sh -c 'journalctl --no-pager -u bellwether | grep replace-after'
is "the process after a reload" "$first" "$(pid)"

step "Upgrade: what the machine's administrator has changed stays, and the broker runs on until it is restarted"
dpkg -i bellwether.deb
is "the process after an upgrade" "$first" "$(pid)"
grep -q '^id = 1' /etc/bellwether/bellwether.toml || fail "the configuration was overwritten"
is "the configuration after an upgrade" "root:bellwether 640" "$(owner /etc/bellwether/bellwether.toml)"
systemctl restart bellwether
[ "$(pid)" != "$first" ] || fail "it was not restarted"
is "messages after a restart" 100 "$(bellwether consume orders --count 100 | wc -l)"
seq 1 100 | bellwether publish --queue orders

step "A broker that hangs is ended by the watchdog and started again; one that is killed is started again"
until_so "it is in the watchdog's hands" sh -c '[ "$(systemctl show --property=WatchdogTimestampMonotonic --value bellwether)" != 0 ]'
kill -STOP "$(pid)"
until_so "restarted for the watchdog" sh -c '[ "$(systemctl show --property=NRestarts --value bellwether)" = 1 ]'
journalctl --no-pager -u bellwether | grep -q -i 'watchdog timeout' || fail "it was not the watchdog"
until_so "ready again" curl --fail --silent http://127.0.0.1:7420/readyz
kill -KILL "$(pid)"
until_so "restarted after a kill" sh -c '[ "$(systemctl show --property=NRestarts --value bellwether)" = 2 ]'
until_so "ready again" curl --fail --silent http://127.0.0.1:7420/readyz

step "Data elsewhere, as the unit says"
systemctl stop bellwether
is "a stop" success "$(systemctl show --property=Result --value bellwether)"
install -d -o bellwether -g bellwether -m 700 /srv/bellwether
cp -a /var/lib/bellwether/data /srv/bellwether/
sed -i 's|^data = .*|data = "/srv/bellwether/data"|' /etc/bellwether/bellwether.toml
! timeout 20 systemctl start bellwether || fail "the unit lets it write where it should not"
systemctl stop bellwether
mkdir -p /etc/systemd/system/bellwether.service.d
printf '[Service]\nReadWritePaths=/srv/bellwether\n' >/etc/systemd/system/bellwether.service.d/data.conf
systemctl daemon-reload
systemctl reset-failed bellwether || true
systemctl start bellwether
is "messages in the other folder" 100 "$(bellwether consume orders --count 100 | wc -l)"
seq 1 100 | bellwether publish --queue orders

step "Remove: it stops; the configuration and the messages stay"
dpkg -r bellwether
is "processes of the user" "" "$(find /proc -maxdepth 1 -name '[0-9]*' -user bellwether)"
[ ! -e /usr/bin/bellwether ] || fail "the program is still there"
[ -e /etc/bellwether/bellwether.toml ] || fail "the configuration went with a mere removal"
dpkg -i bellwether.deb
grep -q '^id = 1' /etc/bellwether/bellwether.toml || fail "the configuration was overwritten"
systemctl start bellwether
is "messages after a removal" 100 "$(bellwether consume orders --count 100 | wc -l)"

step "Purge: the configuration goes, the messages stay"
dpkg -P bellwether
[ ! -e /etc/bellwether ] || fail "the configuration is left: $(ls /etc/bellwether)"
[ -e /var/lib/bellwether/data ] || fail "the messages are gone"
[ ! -e /usr/lib/systemd/system/bellwether.service ] || fail "the unit is left"
getent passwd bellwether >/dev/null || fail "the user is gone, and what it owns is left"
touch passed
echo "All of it is as it should be"
