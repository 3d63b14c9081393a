#!/usr/bin/env bash
# Everything that needs a GPU, in steps of at most ten minutes: call again until it prints "all done".
#
#   benchmarks/gpu.sh [SECONDS]     stops after SECONDS (570); the next call starts the unfinished step again,
#                                   a training run resumes from its checkpoint
#
# CIFAR-10 is expected in $HCL_DATA, by default data/. Results: benchmarks/results/h100/ and runs/image/cifar10/.
# PYTHON is the interpreter, by default that of .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=${1:-570}
python=${PYTHON:-.venv/bin/python}
results=benchmarks/results/h100
mkdir -p "$results"

left() { echo $((limit - SECONDS)); }

# Runs a command once: step NAME COMMAND... A finished step leaves the file $results/done/NAME.
step() {
    local name=$1 status=0
    shift
    [ -e "$results/done/$name" ] && return 0
    if [ "$(left)" -lt 30 ]; then
        echo "time is up before $name: call again"
        exit 75
    fi
    echo "== $name"
    timeout --signal=INT --kill-after=20 "$(left)" "$@" || status=$?
    if [ "$status" -eq 124 ] || [ "$status" -eq 130 ] || [ "$status" -eq 137 ]; then
        echo "time is up within $name: call again"
        exit 75
    fi
    [ "$status" -eq 0 ] || exit "$status"
    mkdir -p "$results/done"
    touch "$results/done/$name"
}

# The tests of the kernels also run without a GPU, interpreted; here they run on it.
step tests-kernels "$python" -m pytest -q tests/core/losses/test_triton_tiles.py
step tests-views "$python" -m pytest -q tests/image/test_image_views.py

# The suite, one part per step; its page is written again after each. Images with the public record's settings (SimCLR,
# ResNet-18, batch 512), plain and compiled; the objective in tiles up to 262,144.
suite=("$python" -m benchmarks --device cuda --output "$results" --only)
step suite-objective "${suite[@]}" objective --objective.tile-size 8192 \
    --objective.batches 256 512 1024 2048 4096 8192 16384 --objective.large-batches 65536 262144
step suite-ranks "${suite[@]}" ranks --ranks.batch 65536 --ranks.tile-size 8192 --ranks.encoder-batch 4096 \
    --ranks.chunks 1024 256
step suite-images "${suite[@]}" images --images.arch resnet18 --images.width 64 --images.batch-size 512 \
    --images.workers 16 --images.steps 7 --images.compile
step suite-graphs "${suite[@]}" graphs
step suite-sentences "${suite[@]}" sentences
step suite-evaluation "${suite[@]}" evaluation
step suite-references "${suite[@]}" references

# 90 % kNN on CIFAR-10 within 15 minutes: at 2.5 s an epoch, 300 epochs are 12.5 minutes.
train=("$python" -m image.train --dataset cifar10 --arch resnet18 --batch-size 512 --epochs 300 --optimizer sgd
    --lr 0.12 --weight-decay 5e-4 --schedule cosine --warmup 10 --knn-every 10 --device cuda --compile --resume)
step cifar10-simclr "${train[@]}" --objective simclr
step cifar10-debiased "${train[@]}" --objective debiased
step cifar10-hard "${train[@]}" --objective hard --beta 1

echo "all done: $results, runs/image/cifar10"
