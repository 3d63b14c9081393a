#!/usr/bin/env bash
# What needs a GPU, for a machine that is lent for 15 minutes in all, its start included: bare, without a
# network, with commands of at most ten minutes, to which little can be carried and from which only small files
# come back. Nothing stays on it between leases. Make each call at once: a machine that is idle goes back.
#
#   bash benchmarks/gpu.sh [STEP...]       without a step: those that are not done yet, in this order
#
#   setup      installs the wheels that were carried, and unpacks the parts of CIFAR-10 or CIFAR-100
#   tests      the tests that run on a GPU
#   objective, ranks, images
#              parts of python -m benchmarks; graphs, sentences and evaluation come last. An interrupted part
#              keeps what it has measured; called again, it starts over.
#   cifar10-hard, cifar10-simclr, cifar10-debiased
#              ResNet-18, batch 512, 100 epochs. A run that is not done when the time is up saves a checkpoint;
#              call the step again, and it resumes. HCL_GPU_EPOCHS changes the number of epochs. Only if they
#              are named: cifar100-hard, cifar100-simclr, cifar100-debiased.
#   keep N     writes pieces 4N-3 to 4N of the unfinished runs' folders, 60 MiB at most, to $OUT. A ResNet-18's
#              checkpoint has 6 pieces: keep 1, then keep 2.
#   restore    puts together the pieces that were carried, also one after the other
#
# One lease does not fit all. A line is a call; after exit code 75 make it again.
#
#   lease 1        setup tests objective
#                  ranks images
#   lease 2        setup                      with part 1 of CIFAR-10
#                  setup cifar10-hard         with part 2
#   leases 3, 4    as lease 2, with cifar10-simclr and with cifar10-debiased
#   lease 5        setup graphs sentences evaluation
#   leases 6 to 8  as lease 2, with the parts and steps of CIFAR-100
#
# Not measured yet: at 2.5 s an epoch (134 TFLOP/s), 100 epochs are 4 minutes, and 7 with reading, compiling and
# scores: one call. 300 epochs (12.5 minutes, towards 90 % kNN) need two leases: keep at the end of the first,
# setup and restore in the second.
#
# After each step, and when a step fails or the time is up, $OUT/results.tar.gz has all results until then.
# Unpack it in the repository: tar -xzf results.tar.gz. Exit code 75: the time is up, call again.
#
# Before, at home: python -m benchmarks.pack --dataset cifar10 (or cifar100), and the missing wheels of
#   tyro docstring_parser typeguard pooch platformdirs sentencex
# into runs/gpu/carry. Carry one part of CIFAR-10 at a time, and call setup with each.
#
# OUT             where results go, by default runs/gpu/out
# PYTHON          the interpreter, by default .venv/bin/python, or python3 where that is not there
# HCL_GPU_CARRY   what was carried, by default runs/gpu/carry
# HCL_GPU_WORK    everything else, by default runs/gpu
# HCL_GPU_EPOCHS  of a run, by default 100
# HCL_GPU_SECONDS seconds until the time is up, by default 570; no command starts in the last 30
# HCL_GPU_DRY=1   tiny sizes on the CPU: a rehearsal
# HCL_GPU_PRINT=1 only prints the commands
set -euo pipefail
cd "$(dirname "$0")/.."

work=${HCL_GPU_WORK:-runs/gpu}
out=${OUT:-$work/out}
carry=${HCL_GPU_CARRY:-$work/carry}
limit=${HCL_GPU_SECONDS:-570}
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
results=$work/results site=$work/site data=$work/data runs=$work/runs pieces=$work/pieces
export PYTHONPATH=$PWD/$site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
[[ $site = /* ]] && export PYTHONPATH=$site:$PYTHONPATH

device=cuda suite_flags=()
pytest_flags=(tests/core/losses/test_triton_tiles.py tests/image/test_image_views.py tests/test_gpu.py)
objective_flags=(--objective.tile-size 8192 --objective.batches 256 512 1024 2048 4096 8192 16384
    --objective.large-batches 65536 262144)
ranks_flags=(--ranks.batch 65536 --ranks.tile-size 8192 --ranks.encoder-batch 4096 --ranks.chunks 1024 256)
images_flags=(--images.arch resnet18 --images.width 64 --images.batch-size 512 --images.workers 16
    --images.steps 7 --images.compile)
graphs_flags=() sentences_flags=() evaluation_flags=()
train_flags=(--arch resnet18 --batch-size 512 --epochs "${HCL_GPU_EPOCHS:-100}" --optimizer sgd --lr 0.12
    --weight-decay 5e-4 --schedule cosine --warmup 10 --knn-every 10 --compile)
if [ -n "${HCL_GPU_DRY:-}" ]; then
    device=cpu suite_flags=(--quick)
    pytest_flags=(-k torch_tiles_are_used tests/core/losses/test_triton_tiles.py)
    objective_flags=(--objective.batches 16 --objective.large-batches 32 --objective.tile-size 8
        --objective.rounds 1)
    ranks_flags=(--ranks.batch 16 --ranks.dim 8 --ranks.tile-size 4 --ranks.encoder-batch 8 --ranks.chunks 4
        --ranks.rounds 1)
    images_flags=(--images.batch-size 8 --images.width 4 --images.rounds 1)
    graphs_flags=(--graphs.batch-size 20 --graphs.rounds 1)
    sentences_flags=(--sentences.embedding-dim 8 --sentences.hidden 6 --sentences.batch-size 20
        --sentences.sentences 20 --sentences.rounds 1)
    evaluation_flags=(--evaluation.task-dim 8 --evaluation.train 300 --evaluation.test 60 --evaluation.dim 8
        --evaluation.epochs 1 --evaluation.rounds 1)
    train_flags=(--arch resnet10 --width 4 --batch-size 16 --epochs 4 --checkpoint-seconds 0)
fi

left() { echo $((limit - SECONDS)); }

# Packs all results until now; replaces the earlier file at once, so that a whole one is always there.
collect() {
    mkdir -p "$out"
    local files=()
    while IFS= read -r -d '' file; do files+=("${file#"$work"/}"); done < <(
        find "$work" \( -path "$results/*" -o -path "$runs/*" \) -type f -not -path '*/checkpoint/*' \
            \( -name '*.json' -o -name '*.jsonl' -o -name '*.md' -o -name '*.txt' -o -name '*.png' \
            -o -name '*.svg' \) -print0 | sort -z)
    [ "${#files[@]}" -gt 0 ] || return 0
    tar -C "$work" -czf "$work/results.tmp" --transform 's,^results,benchmarks/results/gpu,' "${files[@]}"
    mv "$work/results.tmp" "$out/results.tar.gz"
}

# Runs a command until the time is up. An interrupted one saves what it has.
run() {
    if [ -n "${HCL_GPU_PRINT:-}" ]; then
        echo "$*"
        return
    fi
    local status=0
    if [ "$(left)" -lt "${HCL_GPU_RESERVE:-30}" ]; then
        echo "time is up before: $*"
        exit 75
    fi
    echo "== $* ($(left) s left)"
    timeout --signal=INT --kill-after=20 "$(left)" "$@" || status=$?
    case $status in
    0) ;;
    124 | 130 | 137)
        echo "time is up within: $*"
        exit 75
        ;;
    *) return "$status" ;;
    esac
}

setup() {
    if compgen -G "$carry/*.whl" > /dev/null; then
        run "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" \
            "$carry"/*.whl || return # without it, set -e being off in a condition, the next lines would hide it
    fi
    for dataset in cifar10 cifar100; do
        if compgen -G "$carry/$dataset-*.zip" > /dev/null || [ -n "${HCL_GPU_PRINT:-}" ]; then
            run "$python" -m benchmarks.pack --unpack --dataset "$dataset" --folder "$carry" \
                --data-root "$data" || return
        fi
    done
}

# The tests of the kernels also run without a GPU, interpreted; here they run on it.
tests() {
    [ -n "${HCL_GPU_PRINT:-}" ] || mkdir -p "$results"
    run "$python" -m pytest -q -p no:cacheprovider "${pytest_flags[@]}" 2>&1 |
        if [ -n "${HCL_GPU_PRINT:-}" ]; then cat; else tee "$results/tests.txt"; fi
    local status=${PIPESTATUS[0]}
    [ "$status" -ne 75 ] || exit 75
    return "$status"
}

suite() {
    local part=$1
    shift
    run "$python" -m benchmarks --device "$device" --output "$results" ${suite_flags[@]+"${suite_flags[@]}"} \
        --only "$part" "$@"
}

train() {
    local dataset=$1 folder=$2
    shift 2
    run "$python" -m image.train --dataset "$dataset" --data-root "$data" --device "$device" \
        --output-dir "$runs/image/$dataset/$folder/seed-0" --resume "$@" "${train_flags[@]}"
}

# A tar of the unfinished runs, split once: it must not change between the calls that bring its pieces.
keep() {
    local first=$(((${1:-1} - 1) * 4))
    mkdir -p "$out"
    if [ ! -e "$pieces/SHA256SUMS" ] || [ "$first" -eq 0 ]; then
        rm -rf "$pieces"
        mkdir -p "$pieces"
        (cd "$runs" && find . -type d -name checkpoint -exec sh -c '
            for folder; do
                run=${folder%/checkpoint}
                [ -e "$run/result.json" ] || echo "$run"
            done' sh {} +) | tar -C "$runs" -cf - -T - |
            split -b "${HCL_GPU_PIECE:-15M}" -d -a 3 - "$pieces/piece-"
        (cd "$pieces" && sha256sum piece-* > SHA256SUMS)
    fi
    cp "$pieces/SHA256SUMS" "$out/"
    for number in $(seq "$first" $((first + 3))); do
        local piece
        piece=$pieces/piece-$(printf %03d "$number")
        if [ -e "$piece" ]; then cp "$piece" "$out/"; fi
    done
    echo "$(wc -l < "$pieces/SHA256SUMS") pieces; in $out: $(cd "$out" && echo piece-*)"
}

restore() {
    mkdir -p "$pieces" "$runs"
    cp "$carry"/piece-* "$carry"/SHA256SUMS "$pieces"
    if (cd "$pieces" && sha256sum --quiet --check SHA256SUMS); then
        cat "$pieces"/piece-* | tar -C "$runs" -xf -
        echo "restored: $(cd "$runs" && find . -type d -name checkpoint)"
    else
        echo "more pieces are needed: carry them, and call restore again"
    fi
}

steps=(setup tests objective ranks images cifar10-hard cifar10-simclr cifar10-debiased graphs sentences
    evaluation)
more=(cifar100-hard cifar100-simclr cifar100-debiased)
call() {
    case $1 in
    setup | tests | restore) "$1" ;;
    objective) suite objective "${objective_flags[@]}" ;;
    ranks) suite ranks "${ranks_flags[@]}" ;;
    images) suite images "${images_flags[@]}" ;;
    graphs) suite graphs ${graphs_flags[@]+"${graphs_flags[@]}"} ;;
    sentences) suite sentences ${sentences_flags[@]+"${sentences_flags[@]}"} ;;
    evaluation) suite evaluation ${evaluation_flags[@]+"${evaluation_flags[@]}"} ;;
    cifar10-hard | cifar100-hard) train "${1%-*}" hard-beta1-tau0.1 --objective hard --beta 1 ;;
    cifar10-simclr | cifar100-simclr) train "${1%-*}" simclr --objective simclr ;;
    cifar10-debiased | cifar100-debiased) train "${1%-*}" debiased-tau0.1 --objective debiased ;;
    *)
        echo "$1 is not a step; it must be one of ${steps[*]} ${more[*]} keep restore" >&2
        return 2
        ;;
    esac
}

[ -n "${HCL_GPU_PRINT:-}" ] || trap collect EXIT
if [ $# -eq 0 ]; then
    for step in "${steps[@]}"; do
        [ -e "$work/done/$step" ] || set -- "$@" "$step"
    done
fi
failed=()
while [ $# -gt 0 ]; do
    step=$1
    shift
    if [ "$step" = keep ]; then
        number=1
        if [[ ${1:-} =~ ^[0-9]+$ ]]; then number=$1 && shift; fi
        keep "$number"
        continue
    fi
    if ! call "$step"; then
        failed+=("$step") # the next steps may work
    elif [ -z "${HCL_GPU_PRINT:-}" ]; then
        mkdir -p "$work/done"
        touch "$work/done/$step"
    fi
    [ -n "${HCL_GPU_PRINT:-}" ] || collect
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
