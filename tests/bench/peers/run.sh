#!/usr/bin/env bash
# Measures each peer as `recguard-serve bench` measures the service: same bundle, same cores, same requests.
#   tests/bench/peers/run.sh BUNDLE OUT [PYTHON of an environment with the extras peers and cpu]
set -euo pipefail
bundle=$(realpath "$1") out=$(realpath "$2") python=$(realpath -s "$(command -v "${3:-python3}")")
cd "$(dirname "$0")"
root=$(realpath ../../..)
export RECGUARD_BUNDLE=$bundle RECGUARD_THREADS=1 OMP_NUM_THREADS=1 BENTOML_DO_NOT_TRACK=True RAY_USAGE_STATS_ENABLED=0 PYTHONPATH=$root:$PWD
bench=("$root/.venv/bin/recguard-serve" bench --bundle "$bundle" --mixes single --connections 1,16,64 --loads 50 --seconds "${SECONDS_EACH:-5}" --cores 0/1)

"${bench[@]}" --out "$out/recguard.json"
for peer in mosec fastapi litserve bentoml ray; do
  "$python" -c "import $peer" 2>/dev/null || { echo "$peer is not installed: left out"; continue; }
  case $peer in
    mosec) arguments=(--port 8101 --timeout 10000) ;;
    *) arguments=(8101) ;;
  esac
  setsid taskset -c 0 "$python" "with_$peer.py" "${arguments[@]}" >"$out/$peer.log" 2>&1 &
  server=$!
  for _ in $(seq 300); do  # until it knows the route
    code=$(curl -s -o /dev/null -w '%{http_code}' -d '{"sequences": []}' http://127.0.0.1:8101/inference || true)
    case $code in 000 | 404 | 503) sleep 0.2 ;; *) break ;; esac
  done
  echo "$peer:"
  "${bench[@]}" --url http://127.0.0.1:8101/inference --out "$out/$peer.json" || true
  kill -- "-$server" || true  # all its processes: some servers leave theirs behind
  wait "$server" || true
  while curl -s -o /dev/null http://127.0.0.1:8101/; do sleep 0.2; done
done
