#!/usr/bin/env bash
# Looks for new failures for as long as told: simulated histories for a tenth of the time, crashes of the journal, then chaos against real
# processes, each run with a new seed, which is printed. Ends at the first violation, with the evidence kept.
#
#   ./soak.sh 60                     an hour
#   ./soak.sh 60 --faults kill,pause what else is given goes to chaos.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [ $# -lt 1 ] || ! [[ "$1" =~ ^[0-9]+$ ]] || [ "$1" -lt 1 ]; then
    echo "usage: ./soak.sh MINUTES [arguments of integration-tests/chaos.sh]" >&2
    exit 2
fi
minutes=$1
shift
command -v cargo >/dev/null || { echo "soak.sh: there is no cargo on the PATH: install Rust first." >&2; exit 1; }

until=$((SECONDS + minutes * 60))
new_seed() { od -An -N4 -tu4 /dev/urandom | tr -d ' '; }

seed=$(new_seed)
echo "==> Simulated histories from seed $seed on"
cargo run --quiet --release -p bellwether-sim --bin sim-soak -- --seed "$seed" --seconds $((minutes * 6))

from=$((seed % 1000000))
echo "==> Crashes of the journal with the seeds $from to $((from + 200))"
JOURNAL_SEEDS="$from..$((from + 200))" cargo test --quiet -p bellwether-journal --lib seeds

runs=0
while [ $SECONDS -lt $until ]; do
    seed=$(new_seed)
    left=$(((until - SECONDS + 59) / 60))
    # Ten minutes a run: long enough for every fault to meet every other, short enough to look at.
    run=$((left < 10 ? left : 10))
    echo "==> Chaos with seed $seed, $run minutes"
    integration-tests/chaos.sh --seed "$seed" --minutes "$run" "$@"
    runs=$((runs + 1))
done
echo "==> $runs runs of chaos: nothing violated"
